"""Operations that a recipe can have as steps: their order, the frames that they change, and their parameters.

Parameters are those of the operation's signature, as far as YAML can state them: numbers, text, lists, and names of files where
the operation takes a frame or an array.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from operator import or_
from types import GenericAlias, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from astropy import units as u

from lazyccd import ops
from lazyccd.errors import ParameterError
from lazyccd.frame.keyword import Keyword

KINDS = ("bias", "dark", "flat", "science")
"""Types of frames that steps are done on; flats of all sorts are one."""

LIGHT = ("dark", "flat", "science")
SCIENCE = ("science",)


@dataclass(frozen=True)
class Rule:
    """What a recipe must know of an operation besides its parameters."""

    place: int | None = None
    """Steps of a recipe come in the order of their places; None stands anywhere."""

    on: tuple[str, ...] = SCIENCE
    """Types of frames that it is done on."""

    is_standard: bool = False
    """Whether the plan of a night knows the step: then it stands once at most, on the frames that it is always done on."""

    options: Mapping[str, str] = field(default_factory=dict)
    """Parameters that the plan must know, and the option of ``lazyccd reduce`` that each of them is."""

    planned: frozenset[str] = frozenset()
    """Parameters that the plan decides for each frame, and a recipe cannot."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that are something else in ``lazyccd reduce`` than the default of the operation."""


def _standard(
    place: int | None,
    *on: str,
    planned: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    **options: str,
) -> Rule:
    """Return the rule of a step that the plan knows."""
    return Rule(place, on, True, options, frozenset(planned), defaults or {})


RULES: dict[str, Rule] = {
    # Saturation is a level of the raw frame.
    "flag_saturated": _standard(1, *KINDS, level="saturate"),
    # Before the overscan for a mask of the raw size, else after the trim: it waits for it.
    "add_mask": _standard(None, *KINDS, array="bpm"),
    "subtract_overscan": _standard(
        2,
        *KINDS,
        fits_section="overscan",
        planned=["readnoise"],
        # Across the short side; as a constant unless it scatters more than the noise of reading.
        defaults={"overscan_axis": None, "statistic": "auto"},
    ),
    "trim_image": _standard(3, *KINDS, fits_section="trim"),
    "subtract_bias": _standard(4, *LIGHT, master="bias"),
    # The noise of signal and reading: after the bias, which has no photons, before the gain.
    "create_deviation": _standard(5, *KINDS, planned=["disregard_nan"], gain="gain", readnoise="readnoise"),
    "correct_crosstalk": Rule(6, LIGHT),
    "correct_linearity": Rule(6, LIGHT),
    "gain_correct": _standard(7, *LIGHT, gain="gain"),
    "subtract_dark": _standard(
        8,
        "flat",
        "science",
        master="dark",
        planned=["dark_exposure", "data_exposure", "exposure_time", "exposure_unit", "scale"],
    ),
    "flat_correct": _standard(9, *SCIENCE, flat="flat", planned=["norm_value", "common_norm"]),
    "divide_illumination": Rule(10),
    "subtract_fringe": Rule(10),
    # From here on a step gets whole detectors.
    "assemble": _standard(11, *SCIENCE),
    "cosmicray_lacosmic": _standard(12, *SCIENCE, defaults={"use_uncertainty": True}),
    "cosmicray_median": Rule(12),
    "subtract_sky": Rule(13),
    "grow_mask": Rule(),
    "interpolate_bad_pixels": Rule(),
    "median_filter": Rule(),
    "add": Rule(),
    "subtract": Rule(),
    "multiply": Rule(),
    "divide": Rule(),
    "with_header": Rule(),
    "block_average": Rule(14),
    "block_reduce": Rule(14),
    "block_replicate": Rule(14),
}
"""The steps that a recipe can have."""

WHOLE = 11
"""Place from which steps get whole detectors instead of single images of a file."""

MASTERS = {"subtract_bias": "bias", "subtract_dark": "dark", "flat_correct": "flat", "add_mask": "bpm"}
"""Steps that need a master, and its kind."""


OTHERS = frozenset({"add_keyword", "verbose", "sigma"})
"""Parameters that are of no use in a recipe: sigma is that of a model, which is code."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a step."""

    type: Any
    """What YAML can state for it, as a type of plain values."""

    default: Any
    """That of the operation; `inspect.Parameter.empty` if it must be given."""

    text: str = ""
    """What it is for, in a sentence."""

    is_file: bool = False
    """Whether text is the name of a file."""

    takes_quantity: bool = False
    """Whether text such as '5 electron' is a number with a unit."""

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    def names_file(self, text: str) -> bool:
        """Return whether text is the name of a file, and not a number with a unit."""
        return self.is_file and not (self.takes_quantity and _is_number(text))


class _NotInText:
    """What YAML cannot state: frames, arrays in memory, functions."""

    def __class_getitem__(cls, _item: Any) -> type[_NotInText]:
        return cls


class _File:
    """A frame or array that an operation also takes from a file."""


# Names of types in signatures. Some are quoted aliases, which Python cannot evaluate beside a |.
_MEANINGS: dict[str, Any] = {
    "CCDData": _NotInText,
    "Model": _NotInText,
    "xr": SimpleNamespace(Dataset=_NotInText, DataTree=_NotInText, DataArray=_NotInText),
    "npt": SimpleNamespace(ArrayLike=list[float], NDArray=_NotInText, DTypeLike=_NotInText),
    "Master": _File,
    "Pixels": _File,
    "Extra": _File,
    "Operand": Union[float, u.Quantity, _File],  # noqa: UP007  (a class of ours and one of astropy, which has no types)
    "NormValue": float | None,
}


@cache
def parameters_of(operation: str) -> dict[str, Parameter]:
    """Return the parameters that a recipe can give to an operation, from its signature and docstring.

    Examples
    --------
    >>> parameters_of("median_filter")["size"].type
    int | tuple[int, int]
    >>> sorted(parameters_of("subtract_fringe"))
    ['bad', 'fringe', 'scale']
    """
    function = inspect.unwrap(getattr(ops, operation))
    hints = get_type_hints(function, localns=_MEANINGS)
    found = {}
    texts = _sentences(function)
    _frame, *others = inspect.signature(function).parameters.values()
    for given in others:
        if given.name in OTHERS | RULES[operation].planned or given.kind is given.VAR_KEYWORD:
            continue
        members = _members(hints[given.name])
        plain = [each for member in members if (each := _plain(member)) is not _NotInText]
        # None alone states nothing.
        if any(each is not type(None) for each in plain):
            found[given.name] = Parameter(
                _union(plain),
                given.default,
                texts.get(given.name, ""),
                is_file=_File in members,
                takes_quantity=u.Quantity in members,
            )
    return found


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union has."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(each for member in get_args(hint) for each in _members(member))
    return (hint,)


def _plain(hint: Any) -> Any:
    """Return a type as that of what YAML can state; `_NotInText` if it cannot."""
    if hint in (float, int, bool, str, type(None)):
        return hint
    if hint in (_File, Keyword) or hint is u.Quantity:
        return str
    if hint is Any:
        return float | bool | str | None
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return hint
    plain = [_union([_plain(each) for each in _members(item)]) for item in inner if item is not ...]
    if origin is tuple:
        return GenericAlias(tuple, (*plain, ...) if ... in inner else tuple(plain))
    if origin in (list, Sequence):
        return GenericAlias(list, (plain[0],))
    if origin in (dict, Mapping):
        return GenericAlias(dict, (str, plain[1]))
    return _NotInText


def _union(types: Sequence[Any]) -> Any:
    """Return the union of some types."""
    return reduce(or_, dict.fromkeys(types))


def _sentences(function: Callable[..., Any]) -> dict[str, str]:
    """Return the first sentence of what a docstring says of each parameter."""
    part = re.search(r"\nParameters\n-+\n(.*?)(?:\n\n[A-Z]\w+\n-+\n|\Z)", inspect.getdoc(function) or "", re.DOTALL)
    found = {}
    for names, text in re.findall(r"^(\w[\w, ]*)\n((?:    .*\n?|\n)+)", part.group(1) if part else "", re.MULTILINE):
        sentence = re.split(r"(?<=[^.])\.(?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
        found.update(dict.fromkeys(re.split(r",\s*", names), sentence.replace("``", "")))
    return found


def to_argument(parameter: Parameter, value: Any) -> Any:
    """Return a value of a recipe as the argument of the operation; files are opened elsewhere.

    Raises
    ------
    ParameterError
        Raised if text begins like a number with a unit and is none.

    Examples
    --------
    >>> to_argument(parameters_of("subtract")["other"], "100 adu")
    <Quantity 100. adu>
    """
    if not (isinstance(value, str) and parameter.takes_quantity and _is_number(value)):
        return value
    try:
        return u.Quantity(value)
    # astropy's message is a paragraph about units of one's own.
    except (TypeError, ValueError):
        raise ParameterError(f"{value!r} is not a number with a unit such as '5 electron'.") from None


def _is_number(text: str) -> bool:
    """Return whether text begins like a number, such as '-1.5 adu', and not like a keyword or a file."""
    return re.match(r"[+-]?\.?\d", text) is not None and not re.search(r"\.(fits?|fts|zarr|fz)\b", text)

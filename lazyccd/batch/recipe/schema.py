"""Check a recipe that was read, collect all faults, and publish what is allowed as a JSON Schema.

1. pydantic compares the document with models that are made of the operations' signatures and of `Options`.
2. What types cannot say: the order of steps, facts that are stated twice, names of files that lead elsewhere.
3. Each step is called with its parameters on a small lazy frame, which computes nothing: the operation itself says what is
   wrong with a value.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, Literal, Union, get_type_hints

import numpy as np
import xarray as xr
from astropy import units as u
from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationError, create_model

from lazyccd import ops
from lazyccd.batch.levels import COMMON, LEVELS, OF_FLATS, Level
from lazyccd.batch.options import COSMIC_RAYS, FILES, MISSABLE, Options, as_option, fault_of
from lazyccd.batch.recipe.document import Document, Place, shown
from lazyccd.batch.recipe.rules import KINDS, MASTERS, RULES, Parameter, parameters_of, to_argument
from lazyccd.batch.recipe.steps import Outputs, RecipeStep
from lazyccd.errors import KeywordError, LazyCCDError, RecipeError
from lazyccd.frame.ccddata import from_ccddata
from lazyccd.frame.nddata import CCDData

STRICT = ConfigDict(extra="forbid", strict=True)
"""A misspelled key, and '5' for 5, are mistakes and no wishes."""


def _one_of(words: Iterable[str]) -> Any:
    """Return the type of some words."""
    return Literal.__getitem__(tuple(words))


OPTION_TYPES: dict[str, Any] = {
    "gain": float | Literal["measured", "stated"],
    "readnoise": float,
    "saturate": float,
    "cosmic_rays": _one_of(COSMIC_RAYS),
    "allow_missing": GenericAlias(list, (_one_of(MISSABLE),)),
    "overscan": str,
    "trim": str,
}
"""Options of which a recipe knows more than that they are words of a command."""

LEVEL_KEYS = sorted({*COMMON, *OF_FLATS, "temperature"})
"""Facts by which frames and masters are compared."""

NOT_IN_RECIPES = frozenset({"recipe", "veto", "vetoed"})
"""Options of one run: another recipe, and frames of one night."""

MOST_FAULTS = 40
"""Faults that are listed; a file that has more is no recipe."""

PHRASES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}
"""What pydantic's errors ask for, in words."""


def check(document: Document, title: str, *, is_file: bool = False) -> dict[str, Any]:
    """Return the fields of a recipe.

    Parameters
    ----------
    document
        What was read.
    title
        What messages call it.
    is_file
        Whether it was read from a file: then it names nothing outside of its folders.

    Raises
    ------
    RecipeError
        Raised with a line for each fault.
    """
    if not document.faults or document.data is not None:
        _check_types(document)
        steps = _readable_steps(document)
        _check_order(document, steps)
        _check_facts(document, steps)
        _check_options(document, steps)
        if is_file:
            _check_files(document, steps)
        _try(document, steps)
    if document.faults:
        faults = sorted(set(document.faults))
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise RecipeError("\n  ".join([f"{title} has {count}:", *map(str, faults[:MOST_FAULTS]), *more]))
    return _fields(document.data)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes, by which editors complete and check them."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Recipe of lazyccd",
        **{key: value for key, value in _model().model_json_schema().items() if key != "title"},
    }


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe whose document has no faults."""
    # A key without a value says nothing, as one that is left out.
    options = {name: value for name, value in (data.get("options") or {}).items() if value is not None}
    made: dict[str, Any] = {"order": data.get("order", "checked"), "options": options}
    if data.get("steps") is not None:
        made["steps"] = tuple(_step(item) for item in data["steps"])
    made["association"] = dict(data.get("association") or {})
    made["outputs"] = Outputs(**{key: _tupled(value) for key, value in (data.get("outputs") or {}).items()})
    return made


def _step(item: str | Mapping[str, Any]) -> RecipeStep:
    """Return a step of its name, or of a mapping of its name to its parameters."""
    if isinstance(item, str):
        return RecipeStep(item)
    ((name, given),) = item.items()
    parameters = {key: _tupled(value) for key, value in (given or {}).items()}
    return RecipeStep(name, parameters, parameters.pop("on", ()))


def _tupled(value: Any) -> Any:
    """Return data with tuples instead of lists, which nobody can change."""
    if isinstance(value, Mapping):
        return {key: _tupled(item) for key, item in value.items()}
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


# --- types


@cache
def _model() -> Any:
    """Return the model of a whole recipe."""
    options: dict[str, Any] = {name: (kind | None, None) for name, kind in _option_types().items()}
    outputs: dict[str, Any] = {
        item.name: (get_type_hints(Outputs)[item.name], item.default) for item in fields(Outputs)
    }
    order, steps = _one_of(("checked", "as listed")), GenericAlias(list, (_steps(),))
    return _make(
        "Recipe",
        {
            "order": (order, Field("checked", description="Whether the order of the steps is checked.")),
            "steps": (steps, Field(None, min_length=1, description="Operations in their order.")),
            "outputs": (_make("Outputs", outputs) | None, Field(None, description=Outputs.__doc__)),
            "association": (_association() | None, Field(None, description="Levels in which masters may fit.")),
            "options": (_make("Options", options) | None, Field(None, description=Options.__doc__)),
        },
    )


def _make(name: str, fields: dict[str, Any]) -> Any:
    """Return a model of some fields."""
    return create_model(name, __config__=STRICT, **fields)


def _association() -> Any:
    """Return the model of the levels of masters."""
    hints = get_type_hints(Level) | {name: GenericAlias(list, (_one_of(LEVEL_KEYS),)) for name in ("keys", "known")}
    levels: dict[str, Any] = {
        item.name: (hints[item.name], ... if item.name == "text" else item.default) for item in fields(Level)
    }
    several = GenericAlias(list, (_make("Level", levels),))
    return _make("Association", dict.fromkeys(LEVELS, (several | None, None)))


def _option_types() -> dict[str, Any]:
    """Return the types of the options that a recipe can state."""
    hints = get_type_hints(Options)
    types = {item.name: hints[item.name] for item in fields(Options) if item.name not in NOT_IN_RECIPES}
    several = {name: str | list[str] for name, kind in types.items() if kind == tuple[str, ...]}
    return types | several | {name: kind for name, kind in OPTION_TYPES.items() if name in types}


def _steps() -> Any:
    """Return the type of a step: its name, or a mapping of its name to its parameters."""
    members: list[Any] = [Annotated[_one_of(_alone()), Tag("name")]]
    for name in RULES:
        needed = any(parameter.is_required for parameter in _allowed(name).values())
        parameters: Any = _parameters(name) if needed else _parameters(name) | None
        model = _make(f"step {name}", {name: (parameters, ... if needed else None)})
        members.append(Annotated[model, Tag(name)])
    return Annotated[Union[tuple(members)], Discriminator(_operation_of)]  # noqa: UP007


def _alone() -> tuple[str, ...]:
    """Return the operations that need no parameters."""
    return tuple(n for n in RULES if not any(parameter.is_required for parameter in _allowed(n).values()))


def _operation_of(item: Any) -> str | None:
    """Return the operation of a step, for pydantic; 'name' for a name alone."""
    if isinstance(item, str):
        return "name"
    return next(iter(item)) if isinstance(item, dict) and len(item) == 1 and next(iter(item)) in RULES else None


def _allowed(operation: str) -> dict[str, Parameter]:
    """Return the parameters of a step; those that the plan of a night gives are not required."""
    rule = RULES[operation]
    known = parameters_of(operation)
    loose = {name: Parameter(each.type, None, each.text, is_file=each.is_file) for name, each in known.items()}
    return known | {name: loose[name] for name in rule.options if name in loose}


def _parameters(operation: str) -> Any:
    """Return the model of the parameters of a step."""
    known: dict[str, Any] = {}
    for name, parameter in _allowed(operation).items():
        kind = OPTION_TYPES.get(RULES[operation].options.get(name, ""), parameter.type)
        default = ... if parameter.is_required else parameter.default
        known[name] = (kind if parameter.is_required else kind | None, Field(default, description=parameter.text))
    if not RULES[operation].is_standard:
        known["on"] = (
            GenericAlias(list, (_one_of(KINDS),)),
            Field(list(RULES[operation].on), min_length=1, description="Frames."),
        )
    return _make(operation, known)


def _check_types(document: Document) -> None:
    """Add the faults that pydantic finds."""
    if document.data is None:
        document.fault((), "is empty; it needs steps:, outputs: or options:, as 'lazyccd recipe NIGHT' prints them")
        return
    try:
        # In JSON a tuple is a list, and strict is strict all the same.
        _model().model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        found: dict[Place, list[Any]] = {}
        for each in error.errors(include_url=False):
            found.setdefault(_place(document.data, each), []).append(each)
        above = {place[:n] for place in found for n in range(len(place))}
        for place, some in found.items():
            # Of a list that is wrong in one of its items, the item is told.
            if place not in above:
                document.fault(place, _text(document.data, place, some))


def _place(data: Any, error: Mapping[str, Any]) -> Place:
    """Return where an error is: pydantic names members of unions too, which are no keys."""
    place: list[str | int] = []
    for key in error["loc"]:
        if (isinstance(data, dict) and key in data) or (
            isinstance(data, list) and isinstance(key, int) and key < len(data)
        ):
            place.append(key)
            data = data[key]
    if error["type"] == "missing":
        place.append(error["loc"][-1])
    return tuple(place)


def _at(data: Any, place: Place) -> Any:
    """Return what stands at a place of a document."""
    for key in place:
        data = data[key]
    return data


def _text(data: Any, place: Place, errors: list[Any]) -> str:
    """Return the text of a fault: what was given, and what is allowed."""
    kinds = {error["type"] for error in errors}
    if "missing" in kinds:
        return _missing(place)
    if "extra_forbidden" in kinds:
        return _unknown(place)
    value = _at(data, place)
    if place[:1] == ("steps",) and len(place) == 2 and not kinds & {"model_type", "too_short"}:
        return _no_step(value)
    if "too_short" in kinds:
        return "is empty; give at least one, or leave it out"
    if isinstance(value, list) and "string_type" in kinds and all(isinstance(item, str) for item in value):
        # [1:100,1:50] is a list in YAML.
        return f"{_given(value)} must be text; put it in quotes: '[{','.join(value)}]'"
    allowed: list[str] = []
    for error in errors:
        words = error["ctx"]["expected"] if error["type"] == "literal_error" else PHRASES.get(error["type"])
        allowed.append(words or error["msg"][:1].lower() + error["msg"][1:])
    allowed = list(dict.fromkeys(allowed))
    hint = _near(value, _words(" ".join(allowed))) if isinstance(value, str) else ""
    return f"{_given(value)} must be {' or '.join(allowed)}{hint}"


def _near(name: str, known: Iterable[str]) -> str:
    """Return the question whether the nearest of some names was meant; empty if none is near."""
    by_case = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold(), by_case, 1)
    return f"; did you mean {by_case[near[0]]!r}?" if near else ""


def _words(text: str) -> list[str]:
    """Return the quoted words of a text."""
    return text.split("'")[1::2]


def _given(value: Any) -> str:
    """Return a value as it stands in YAML, and what it was taken for where that may surprise."""
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return f"the text {shown}" if isinstance(value, str) else f"the list {shown}" if isinstance(value, list) else shown


def _missing(place: Place) -> str:
    """Say that a parameter is missing."""
    operation, name = str(place[-2]), str(place[-1])
    if operation in RULES and parameters_of(operation)[name].is_file:
        return f"is missing, and no rule of a night provides it: name a file, such as {name}: {name}.fits"
    return "is missing"


def _unknown(place: Place) -> str:
    """Say that a key is unknown, and which may have been meant."""
    name, inside = str(place[-1]), str(place[-2]) if len(place) > 1 else ""
    if inside in RULES:
        rule = RULES[inside]
        if name in rule.planned:
            return "is decided for each frame by the plan of the night; remove it, or give it by an option"
        if name == "on":
            return f"{inside} is done on all frames that need it, so that masters fit them; remove it"
        known, what = [*_allowed(inside), *([] if rule.is_standard else ["on"])], f"is no parameter of {inside}"
    else:
        models = {
            "": ("order", "steps", "outputs", "options", "association"),
            "outputs": [f.name for f in fields(Outputs)],
            "association": list(LEVELS),
        }
        is_level = place[0] == "association" and len(place) > 2
        known = [f.name for f in fields(Level)] if is_level else list(models.get(inside, _option_types()))
        inside = "a level" if is_level else inside
        what = f"is no key of {inside}" if inside else "is no key of a recipe"
    if name.isdigit():
        return f"{what}; write numbers with a point, such as 1.{name}"
    return f"{what}{_near(name, known) or '; ' + _known(known)}"


def _known(names: Iterable[str]) -> str:
    """Return what is allowed."""
    return f"allowed are {', '.join(names)}" if names else "it has none"


def _no_step(value: Any) -> str:
    """Say what is wrong with an item of the steps."""
    if isinstance(value, dict) and len(value) > 1:
        first, second, *_ = value
        if first in RULES and second in _allowed(first):
            return f"{second} must be indented below {first}, by two more blanks"
        return f"{', '.join(value)} are several steps in one item; begin each with '- '"
    if not isinstance(value, (str, dict)) or not value:
        return f"{_given(value)} must be the name of a step, or NAME: with parameters"
    name = value if isinstance(value, str) else next(iter(value))
    if name in RULES:
        needed = [key for key, parameter in _allowed(name).items() if parameter.is_required]
        masters = [key for key in needed if parameters_of(name)[key].names_file("")]
        why = f", and no rule of a night provides {masters[0]}" if masters else ""
        return f"{name} needs {' and '.join(needed)}{why}; write {name}: {{{needed[0]}: ...}}"
    near = _near(name, RULES)
    if near:
        return f"{name!r} is no step{near}"
    why = "it is no step of single frames" if hasattr(ops, name) else f"allowed are {', '.join(RULES)}"
    return f"{name!r} is no step: {why}"


# --- what types cannot say


def _readable_steps(document: Document) -> dict[int, RecipeStep]:
    """Return the steps that can be read, by their positions; faults of the others are told already."""
    items = document.data.get("steps") if isinstance(document.data, dict) else None
    found = {}
    for number, item in enumerate(items if isinstance(items, list) else []):
        whole = {item: None} if isinstance(item, str) else item
        if _operation_of(whole) is not None and isinstance(next(iter(whole.values())), (dict, type(None))):
            found[number] = _step(whole)
    return found


def _check_order(document: Document, steps: Mapping[int, RecipeStep]) -> None:
    """Add faults of steps that stand in the wrong order, or twice."""
    is_checked = document.data.get("order", "checked") != "as listed" if isinstance(document.data, dict) else False
    seen: dict[str, int] = {}
    for number, step in steps.items():
        place, rule = ("steps", number), RULES[step.operation]
        if rule.is_standard and step.operation in seen:
            document.fault(place, f"{step.operation} stands twice, first as steps[{seen[step.operation]}]; remove one")
        if is_checked and rule.place is not None:
            later = [name for name in seen if (RULES[name].place or 0) > rule.place]
            if later:
                document.fault(
                    place,
                    f"{step.operation} stands after {later[0]} and belongs before it; move it up, or write "
                    "'order: as listed' at the top if this is what you want",
                )
        seen.setdefault(step.operation, number)


def _check_facts(document: Document, steps: Mapping[int, RecipeStep]) -> None:
    """Add faults of what is stated by an option and again by a step, and of outputs that exclude each other."""
    data = document.data if isinstance(document.data, dict) else {}
    options, outputs = (_mapping(data.get(key)) for key in ("options", "outputs"))
    stated = {name: f"options.{name}" for name in options}
    for number, step in steps.items():
        for name in step.parameters:
            option = RULES[step.operation].options.get(name)
            if option is None:
                continue
            where = f"steps[{number}].{step.operation}.{name}"
            if option in stated:
                document.fault(("steps", number, step.operation, name), f"is stated by {stated[option]} too; keep one")
            stated[option] = where
    for kind in set(options) & set(MASTERS.values()):
        needed = next(step for step, of in MASTERS.items() if of == kind)
        if "steps" in data and needed not in {step.operation for step in steps.values()}:
            document.fault(("options", kind), f"needs the step {needed}, which is not in steps; add it")
    for kind, levels in _mapping(data.get("association")).items():
        needed = next(
            (step for step in ("subtract_bias", "subtract_dark", "flat_correct") if MASTERS[step] == kind), ""
        )
        if levels == [] and ("steps" not in data or needed in {step.operation for step in steps.values()}):
            text = f"has no level, so no rule provides the {kind} that {needed} needs; add one, or leave out the step"
            document.fault(("association", kind), text)
    if outputs.get("format") == "zarr" and outputs.get("compress") is not None:
        document.fault(("outputs", "compress"), "is for format: fits; Zarr is always compressed. Remove it")


def _check_options(document: Document, steps: Mapping[int, RecipeStep]) -> None:
    """Add faults of values that no option of the command may have either, stated by options or by steps."""
    stated: list[tuple[Place, str, Any]] = [
        (("options", name), name, value) for name, value in _mapping(_mapping(document.data).get("options")).items()
    ]
    for number, step in steps.items():
        names = RULES[step.operation].options
        stated += [
            (("steps", number, step.operation, key), names[key], value)
            for key, value in step.parameters.items()
            if key in names
        ]
    told = {fault.place for fault in document.faults}
    for place, name, value in stated:
        # What has the wrong type is told already.
        if value is None or shown(place) in told or name not in _option_types():
            continue
        fault = fault_of(name, as_option(name, value))
        if fault:
            document.fault(place, fault.rstrip("."))


def _mapping(value: Any) -> dict[str, Any]:
    """Return a mapping, empty if it is none."""
    return value if isinstance(value, dict) else {}


def _check_files(document: Document, steps: Mapping[int, RecipeStep]) -> None:
    """Add faults of names that lead out of the folders of the recipe and the night."""
    options = _mapping(_mapping(document.data).get("options"))
    named: list[tuple[Place, Any]] = [(("options", name), value) for name, value in options.items() if name in FILES]
    for number, step in steps.items():
        for name, value in step.parameters.items():
            parameter = parameters_of(step.operation).get(name)
            if parameter is not None and isinstance(value, str) and parameter.names_file(value):
                named.append((("steps", number, step.operation, name), value))
    for place, value in named:
        for each in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
            if isinstance(each, str) and leads_out(each):
                way = f"; give it by --{place[1]} {each}" if place[0] == "options" else ""
                text = f"{each!r} leads out of the folder of the recipe; name a file below it or below the night"
                document.fault(place, text + way)


def leads_out(name: str) -> bool:
    """Return whether a name is not one of a file below some folder.

    Examples
    --------
    >>> [leads_out(name) for name in ("calib/flat.fits", "../flat.fits", "/etc/passwd", "s3://bucket/flat.fits")]
    [False, True, True, True]
    """
    parts = name.replace("\\", "/").split("/")
    return os.path.isabs(name) or ".." in parts or "://" in name or name.startswith("~")


# --- values


def _try(document: Document, steps: Mapping[int, RecipeStep]) -> None:
    """Add the faults that operations find in the values of their parameters."""
    bad = {fault.place.partition(".")[0] for fault in document.faults}
    # Steps make planes that others then name.
    planes = OWN_PLANES | {step.parameters.get("plane", "BAD") for step in steps.values()}
    unit = "adu"
    for number, step in steps.items():
        if f"steps[{number}]" not in bad and step.parameters:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    _call(step, _probe(unit, tuple(sorted(filter(_is_text, planes)))))
            # Which keywords a header has only the night shows.
            except KeywordError:
                pass
            except (LazyCCDError, ValueError, TypeError) as error:
                text = str(error).rstrip(".")
                document.fault(_place_of(text, ("steps", number, step.operation), step.parameters), text)
        unit = "electron" if step.operation == "gain_correct" else unit


def _place_of(text: str, step: Place, given: Iterable[str]) -> Place:
    """Return the place of the parameter that a message begins with; that of the step if it begins with none that was given."""
    name = re.match(r"\w*", text)
    return (*step, name[0]) if name is not None and name[0] in set(given) else step


OWN_PLANES = frozenset({"BLEED", "NONLINEAR", "CROSSTALK"})
"""Mask planes that operations add to the eight of every mask."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _call(step: RecipeStep, frame: xr.Dataset) -> None:
    """Call an operation on a lazy frame."""
    known = parameters_of(step.operation)
    text = {name: value for name, value in step.parameters.items() if isinstance(value, str)}
    files = {name for name, value in text.items() if known[name].names_file(value)}
    given = {
        name: to_argument(known[name], value)
        for name, value in step.parameters.items()
        if name not in files | set(RULES[step.operation].options) and value is not None
    }
    # What is missing now comes from files, or from the plan of the night.
    needed = {name for name, parameter in known.items() if parameter.is_required}
    if not given or needed - set(given) or step.operation in {"correct_crosstalk", "assemble"}:
        return
    if step.operation == "subtract_overscan":
        given = {"fits_section": f"[{SIDE - 7}:{SIDE},:]", **given}
    getattr(ops, step.operation)(frame, **given)


SIDE = 1024
"""Pixels along a side of the frame on which steps are tried: boxes and blocks are smaller."""


@cache
def _probe(unit: str, planes: tuple[str, ...]) -> xr.Dataset:
    """Return a frame in some unit, with more mask planes."""
    pixels = np.ones((SIDE, SIDE), np.float32)
    frame = ops.with_uncertainty(from_ccddata(CCDData(pixels, unit=u.Unit(unit))), pixels)
    for plane in ("BAD", *planes):
        frame = ops.add_mask(frame, pixels == 0, plane=plane)
    return frame

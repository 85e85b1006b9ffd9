"""Log entries in headers, as ccdproc writes them: scripts that look for its keywords find them.

`lazyccd.frame.processing_history` reads them back, and those of IRAF.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from astropy import units as u
from astropy.config import ConfigItem, ConfigNamespace
from astropy.io import fits

from lazyccd.frame.header import NewCard, append_cards, set_card
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.kinds import is_instance
from lazyccd.frame.nddata import is_nddata

SHORT_NAMES = {
    "background_deviation_box": "bakdevbx",
    "background_deviation_filter": "bakdfilt",
    "ccd_process": "ccdproc",
    "cosmicray_lacosmic": "crlacos",
    "cosmicray_median": "crmedian",
    "correct_crosstalk": "xtalkcor",
    "correct_linearity": "lincor",
    "create_deviation": "creatvar",
    "divide_illumination": "illumcor",
    "flat_correct": "flatcor",
    "gain_correct": "gaincor",
    "subtract_bias": "subbias",
    "subtract_dark": "subdark",
    "subtract_fringe": "fringcor",
    "subtract_overscan": "suboscan",
    "subtract_sky": "subsky",
    "trim_image": "trimim",
    "transform_image": "tranim",
    "wcs_project": "wcsproj",
    "flag_saturated": "flagsat",
    "grow_mask": "growmask",
    "interpolate_bad_pixels": "fillbad",
    "median_filter": "medfilt",
}
"""Short keywords for the names of operations, which FITS keywords are too short for."""

COMMENT = "Shortened name for ccdproc command"


class Conf(ConfigNamespace):  # type: ignore[misc]
    """Configuration of lazyccd."""

    auto_logging = ConfigItem(True, "Whether to automatically log operations to metadata", module="lazyccd")


conf = Conf()


ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")

LogEntry: TypeAlias = bool | str | Keyword | Mapping[str, Any] | None
"""What ``add_keyword`` may be: True for name and arguments, something else to note instead, False or None for nothing."""


def bind_arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that were passed, by name, in the order in which they were."""
    return dict(zip(_parameters(func), args, strict=False)) | dict(kwargs)


@cache
def _parameters(func: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return tuple(inspect.signature(inspect.unwrap(func)).parameters)


def log_entries(name: str, arguments: Mapping[str, Any], add_keyword: LogEntry) -> list[tuple[str, Any]]:
    """Return the keys and values by which an operation notes itself.

    Parameters
    ----------
    name
        Name of the operation.
    arguments
        The arguments that were passed.
    add_keyword
        True for the name and the arguments; a string or a `Keyword` for that instead; a mapping for its items; None or
        False for nothing.
    """
    if add_keyword is None or add_keyword is False:
        return []
    if isinstance(add_keyword, str):
        return [(add_keyword, None)]
    if isinstance(add_keyword, Keyword):
        return [(add_keyword.name, add_keyword.value)]
    if isinstance(add_keyword, Mapping):
        return list(add_keyword.items())
    if not conf.auto_logging:
        return []
    text = ", ".join(f"{key}={_shown(value)}" for key, value in arguments.items())
    return [(name, text.replace("\n", ""))]


def _shown(value: Any) -> Any:
    """Return a value as it is logged: images and arrays by their type."""
    # what ccdproc would have been given in its place
    if is_instance(value, "xarray", "Dataset"):
        return "<CCDData>"
    if isinstance(value, u.Quantity):
        return value if value.isscalar else f"<{type(value).__name__}>"
    if is_instance(value, "lazyccd.plan.steps", "Scalar"):
        return f"<{value.what}>"
    if (
        isinstance(value, np.ndarray)
        or is_instance(value, "xarray", "DataArray")
        or is_nddata(value)
        or hasattr(value, "__dask_graph__")
    ):
        shape = getattr(value, "shape", ())  # np.size would compute a lazy array
        return f"<{type(value).__name__}>" if isinstance(shape, tuple) and math.prod(shape) > 1 else value
    return value


def apply_to_text(text: str, entries: Iterable[tuple[str, Any]]) -> str:
    """Return a header text with log entries added."""
    cards: list[NewCard] = []
    for key, given in entries:
        # where a function lies in memory differs from run to run: equal calls must give equal headers
        value = ADDRESS.sub("", given) if isinstance(given, str) else given
        short = SHORT_NAMES.get(key)
        if short is None:
            cards.append((key, *_card(value)))
        else:
            cards += [(f"HIERARCH {key.upper()}", short, COMMENT), (short.upper(), value, "")]
    return append_cards(text, cards)


def apply_to_meta(meta: MutableMapping[str, Any], entries: Iterable[tuple[str, Any]]) -> None:
    """Add log entries to the meta of a CCDData."""
    for key, value in entries:
        short = SHORT_NAMES.get(key)
        if short is None:
            meta[key] = _card(value) if isinstance(meta, fits.Header) and isinstance(value, u.Quantity) else value
            continue
        if isinstance(meta, fits.Header):
            set_card(meta, f"HIERARCH {key.upper()}", short, COMMENT)
            set_card(meta, short, value)
        else:
            meta[key] = (short, COMMENT)
            meta[short] = value


def _card(value: object) -> tuple[Any, str]:
    """Return value and comment of a card; the unit of a quantity becomes the comment."""
    return (value.value, f"[{value.unit}]") if isinstance(value, u.Quantity) else (value, "")

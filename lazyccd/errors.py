"""Errors that say what is wrong, with both values and the way out.

Every class is a `LazyCCDError` and also the built-in (or astropy) class that an astronomer would catch for the same mistake.
"""

from __future__ import annotations

import sys
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class LazyCCDError(Exception):
    """Base class of every error that lazyccd raises on purpose."""


class ShapeError(LazyCCDError, ValueError):
    """Shapes that must agree do not."""


class SectionError(LazyCCDError, ValueError):
    """A FITS or IRAF section is malformed or lies outside the image."""


class UnitError(LazyCCDError, ValueError):
    """Units are missing, incompatible or not understood."""


class FrameError(LazyCCDError, ValueError):
    """A Dataset is not a valid frame."""


class ArgumentTypeError(LazyCCDError, TypeError):
    """An argument has a type that the operation does not take."""


class ParameterError(LazyCCDError, ValueError):
    """An argument has a value outside of what the operation accepts."""


class RecipeError(LazyCCDError, ValueError):
    """A recipe has faults; the message has a line for each, with file, line, key and what is allowed."""


class KeywordError(LazyCCDError, KeyError):
    """A header keyword is missing or its value cannot be used."""

    def __str__(self) -> str:
        """Return the message as written; ``KeyError`` would show its repr."""
        return str(self.args[0]) if self.args else ""


class PlanError(LazyCCDError, ValueError):
    """A plan cannot be built or run as asked."""


class MemoryLimitError(LazyCCDError, MemoryError):
    """A plan cannot run under the declared memory limit."""


class FormatError(LazyCCDError, OSError):
    """A file is not what its name or header claims, or is damaged."""


class MissingFileError(LazyCCDError, FileNotFoundError):
    """A file or store is not there."""


class TargetExistsError(LazyCCDError, FileExistsError):
    """An output exists and ``overwrite`` was not asked for."""


class ClusterLostError(LazyCCDError, ConnectionError):
    """The scheduler of a cluster, or the last of its workers, is gone."""


class SourceChangedError(LazyCCDError, RuntimeError):
    """A file changed after the plan that reads it was made."""


class WriteError(LazyCCDError, OSError):
    """Writing failed; nothing was left under the final name."""


class TargetBusyError(LazyCCDError, RuntimeError):
    """Another process is writing the same output."""


class ResumeError(LazyCCDError, ValueError):
    """An interrupted write was begun from other inputs or with other settings."""


class RepeatedStepWarning(UserWarning):
    """A step of the reduction is done again on pixels on which it was done already."""


class EmptyFrameWarning(UserWarning):
    """A frame of a mosaic has no good pixel, or no weight, and adds nothing."""


_filters = threading.RLock()


@contextmanager
def quiet(*categories: type[Warning]) -> Iterator[None]:
    """Ignore warnings of some categories inside the block, one thread at a time.

    Filters belong to the process: of two threads at a time, one could leave the warnings of all others ignored for good.
    """
    with _filters, warnings.catch_warnings():
        for category in categories:
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def warnings_raised() -> Iterator[None]:
    """Raise every warning as an error inside the block, one thread at a time; see `quiet`."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line outside of lazyccd that the call came from, however many functions lie between."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "lazyccd":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def printable(text: str) -> str:
    r"""Return text that cannot steer a terminal: characters that do not print, other than tabs and line ends, as escapes.

    Examples
    --------
    >>> print(printable("a\x1b[31m.fits"), printable("Größe: 5 µm"))
    a\x1b[31m.fits Größe: 5 µm
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode()
        for char in text
    )

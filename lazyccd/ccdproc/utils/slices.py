"""Slices from text, in Python's order and counting or in that of FITS."""

from __future__ import annotations

__all__ = ["slice_from_string"]


def slice_from_string(string: str, fits_convention: bool = False) -> tuple[slice, ...]:
    """Return the slices that a text such as ``"[1:5, :]"`` stands for.

    Parameters
    ----------
    string
        One part per axis, in square brackets. An empty text gives no slices.
    fits_convention
        The parts are in the order x, y, count from 1 and include the last pixel; ``*`` is a whole axis, ``-*`` one read
        backwards.

    Examples
    --------
    >>> slice_from_string("[1:10, 4:5:2]", fits_convention=True)
    (slice(3, 5, 2), slice(0, 10, None))
    """
    text = "".join(string.split())
    if not text:
        return ()
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"slice {string!r} must stand in square brackets, as '[1:5, :]'.")
    parts = text[1:-1].split(",")
    if fits_convention:
        return tuple(_fits_slice(part) for part in reversed(parts))
    return tuple(_python_slice(part) for part in parts)


def _python_slice(part: str) -> slice:
    """Return the slice of one axis, as Python writes it."""
    # a single number is a stop, as in ccdproc
    return slice(*(int(number) if number else None for number in part.split(":")))


def _fits_slice(part: str) -> slice:
    """Return the slice of one axis, as FITS writes it."""
    if "*" in part:
        axis, _, given_step = part.partition(":")
        step = int(given_step) if given_step else None
        return slice(None, None, -(step or 1) if axis == "-*" else step)
    given = _python_slice(part)
    start, stop, step = given.start, given.stop, given.step
    if stop is not None and stop < 0:
        raise ValueError(f"section {part!r} ends at {stop}; the last pixel must not be negative.")
    if start is not None and start < 1:
        raise ValueError(f"section {part!r} begins at {start}; Smallest permissible FITS index is 1.")
    if start is not None and stop is not None and start > stop:
        # the pixel before the last one to read, and nothing before pixel 1
        return slice(start - 1, stop - 2 if stop > 1 else None, -(step or 1))
    return slice(start - 1 if start is not None else None, stop, step)

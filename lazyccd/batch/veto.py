"""Frames that a user takes out of a night: by ``--veto``, and remembered in ``OUT/veto.txt`` until their line is removed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lazyccd.batch.night_plan import FramePlan, exposure_name
from lazyccd.batch.options import Options
from lazyccd.errors import FormatError, ParameterError
from lazyccd.io.names import split_hdu

MEMORY = "veto.txt"
VETOED = "vetoed"
"""Why a frame is not reduced."""


def with_remembered(options: Options, out: str | os.PathLike[str] | None) -> Options:
    """Return options with the vetoes that earlier runs into a folder remember.

    Parameters
    ----------
    options
        What is asked for now.
    out
        Folder of the products; None where there is none yet.

    Raises
    ------
    FormatError
        Raised if the file is not text in UTF-8.
    """
    path = None if out is None else Path(out) / MEMORY
    if path is None or not path.exists():
        return options
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FormatError(
            f"{path}, line {line}: byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8, or remove it."
        ) from None
    lines = (line.strip() for line in text.splitlines())
    return replace(options, vetoed=tuple(line for line in lines if line and not line.startswith("#")))


def remember(out: Path, options: Options, frames: Sequence[FramePlan]) -> None:
    """Write the names of vetoed frames into the folder of the products."""
    names = dict.fromkeys([*options.vetoed, *(exposure_name(item) for item in frames if item.listed == VETOED)])
    # A line that a user removed is no longer among the options, so it does not come back.
    if not options.veto:
        return
    part = out / f".{MEMORY}.part"
    lines = ["# Frames that are left out, one a line. Remove a line, and the next run takes its frame again.", *names]
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(part, out / MEMORY)


def without_vetoed(frames: list[FramePlan], options: Options) -> tuple[list[FramePlan], list[str]]:
    """Return the plans of a night of which the vetoed ones are only listed, and notes on what is remembered in vain.

    Raises
    ------
    ParameterError
        Raised if a frame that is vetoed now is not part of the night.
    """
    if not options.veto and not options.vetoed:
        return frames, []
    out = {name for given in options.veto for name in frames_called(given, frames, "--veto")}
    known = {exposure_name(item) for item in frames}
    notes = [f"{MEMORY}: {name} is not part of the night" for name in options.vetoed if name not in known]
    out |= known & set(options.vetoed)
    return [replace(item, listed=VETOED) if exposure_name(item) in out else item for item in frames], notes


def frames_called(given: str, frames: Iterable[FramePlan], option: str) -> list[str]:
    """Return the name of the exposure that a user means: its name in the night, its path, or its file name if that is clear.

    Raises
    ------
    ParameterError
        Raised if there is none, or several.
    """
    names = {exposure_name(item): split_hdu(item.source)[0] for item in frames}
    found = [name for name in names if name == given]
    found = found or [name for name, path in names.items() if os.path.abspath(given) == os.path.abspath(path)]
    found = found or [name for name in names if os.path.basename(name) == given]
    if len(found) == 1:
        return found
    if found:
        raise ParameterError(f"{option} {given!r} may be {' or '.join(found)}; name one of them.")
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "name a file as the plan does."
    raise ParameterError(f"{option} {given!r} is not part of the night; {hint}")

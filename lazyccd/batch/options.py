"""What a user asks of a night besides its files: the options of ``lazyccd reduce``."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from lazyccd.errors import ParameterError
from lazyccd.frame.header_values import is_nothing
from lazyccd.io.fits.mef import OnError

MISSABLE = ("bias", "dark", "flat", "gain", "readnoise")
"""What a product can lack and still be made; names for ``--allow-missing``."""

COSMIC_RAYS = ("lacosmic", "flag", "fill", "none")
"""What can be done about cosmic rays: see `Options.cosmic_rays`."""


SETTINGS = ("camera", "gain", "readnoise", "saturate", "overscan", "trim", "cosmic_rays")
"""Options that products of one folder share. The others choose frames and masters, which may change from run to run."""


@dataclass(frozen=True)
class Options:
    """What was asked for besides the files; empty where nothing was."""

    recipe: str = ""
    """Path of a recipe."""

    camera: str = ""
    """Path of a camera table."""

    gain: str = ""
    """Electrons per adu, 'measured', or 'stated': then measured ones that differ raise no doubt."""

    readnoise: str = ""
    saturate: str = ""
    overscan: str = ""
    """Section, or 'none'; so is trim."""

    trim: str = ""
    bias: tuple[str, ...] = ()
    """Files with existing masters; so are dark and flat."""

    dark: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()
    bpm: str = ""
    calib: tuple[str, ...] = ()
    """Folders of existing masters."""

    max_level: int | None = None
    """Worst level of masters that are used, counted from 0; None for any. See `lazyccd.batch.levels`."""

    cosmic_rays: str = ""
    """What is done about them; empty is 'lacosmic' for images and 'none' for spectra.

    - lacosmic: they are replaced and flagged, unless the checks of the result fail.
    - flag: they are only flagged, unless the checks fail.
    - fill: they are replaced and flagged whatever the checks say.
    """

    allow_missing: tuple[str, ...] = ()
    force: bool = False
    recursive: bool = False
    """Whether subfolders are searched."""

    on_error: OnError | None = None
    """What a damaged image of several does: its exposure fails (raise), or it is skipped; None where nothing was asked, as raise."""

    veto: tuple[str, ...] = ()
    """Frames to leave out."""

    vetoed: tuple[str, ...] = ()
    """Frames that an earlier run left out."""

    def __post_init__(self) -> None:
        """Refuse what cannot be missing, and methods that are not known."""
        for item in fields(self):
            fault = fault_of(item.name, getattr(self, item.name))
            if fault:
                raise ParameterError(f"--{item.name.replace('_', '-')} {fault}")

    @property
    def given(self) -> dict[str, Any]:
        """Options that were asked for, by name: the later word beside what a recipe or a table says."""
        values = {item.name: (getattr(self, item.name), item.default) for item in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @property
    def facts(self) -> dict[str, str]:
        """Facts that were given."""
        # 'measured' is no value yet: until pairs were measured the header's gain stands, as it does with 'stated'.
        no_number = {("gain", "measured"), ("gain", "stated")}
        given = {name: getattr(self, name) for name in ("gain", "readnoise", "saturate", "overscan", "trim")}
        return {name: text for name, text in given.items() if text and (name, text) not in no_number}

    @property
    def measured(self) -> bool:
        """Whether measured gains and read noises are to be used."""
        return self.gain == "measured"


def fault_of(name: str, value: Any) -> str:
    """Say what is wrong with the value of an option, beginning with the value; empty if nothing is.

    Examples
    --------
    >>> fault_of("max_level", -1), fault_of("max_level", 1)
    ('-1 must be 0 or more; correct it.', '')
    """
    if name == "on_error" and value not in {None, "raise", "skip"}:
        return f"{value!r} must be raise or skip; correct it."
    # float('nan') is a number; as a gain it would make every pixel NaN without an error.
    if name in {"gain", "readnoise", "saturate"} and value and is_nothing(value):
        return f"{value!r} must be a number; leave it out if it is not known."
    if name == "cosmic_rays" and value not in {"", *COSMIC_RAYS}:
        return f"{value!r} must be lacosmic, flag, fill or none; correct it."
    if name == "max_level" and value is not None and value < 0:
        return f"{value} must be 0 or more; correct it."
    unknown = [kind for kind in value if kind not in MISSABLE] if name == "allow_missing" else []
    return f"{unknown[0]!r} must be one of {', '.join(MISSABLE)}; correct it." if unknown else ""


FILES = frozenset({"camera", "bias", "dark", "flat", "bpm", "calib"})
"""Options that name files or folders."""


def as_option(name: str, value: Any) -> Any:
    """Return the value of an option in the form that it has as a word of a command: numbers are text, several a tuple.

    Examples
    --------
    >>> as_option("gain", 1.5), as_option("bias", "b.fits")
    ('1.5', ('b.fits',))
    """
    default = getattr(Options(), name)
    if isinstance(default, tuple):
        several = [value] if isinstance(value, (str, os.PathLike)) else value
        return tuple(os.fspath(item) for item in several)
    return str(value) if isinstance(default, str) else value

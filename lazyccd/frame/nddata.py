"""Whether something is astropy's NDData, without importing it.

`astropy.nddata` brings tables and coordinates along, which take a fifth of the time of importing everything else. There is no
NDData before somebody has imported it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from lazyccd.frame.kinds import is_instance, known_class

if TYPE_CHECKING:
    from astropy.nddata import CCDData as CCDData
    from astropy.nddata import NDData


def __getattr__(name: str) -> Any:
    """Import CCDData when `lazyccd.CCDData` is asked for."""
    if name != "CCDData":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from astropy.nddata import CCDData

    return CCDData


def is_ccddata(given: object) -> TypeGuard[CCDData]:
    """Return whether something is a CCDData."""
    return is_instance(given, "astropy.nddata", "CCDData")


def is_nddata(given: object) -> TypeGuard[NDData]:
    """Return whether something is an NDData, such as a CCDData."""
    return is_instance(given, "astropy.nddata", "NDData")


def is_uncertainty(given: object) -> bool:
    """Return whether something is an uncertainty of astropy, an instance or its class."""
    known = known_class("astropy.nddata", "NDUncertainty")
    return isinstance(given, known) or (isinstance(given, type) and known != () and issubclass(given, known))

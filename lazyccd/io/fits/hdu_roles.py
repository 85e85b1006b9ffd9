"""Tell which images of a file are frames, which are planes of a frame, and which are neither.

An extension ERR, DQ, ... belongs to the image of its shape and version that stands nearest before it, and if there is none
of its version, to the nearest of its shape: SCI, ERR, DQ of HST, MASK and UNCERT of CCDData, image, mask, variance of LSST.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from lazyccd.errors import ParameterError
from lazyccd.frame.core import MASK, UNCERTAINTY, UncertaintyType
from lazyccd.io.fits.layout import UNCERTAINTY_CLASSES
from lazyccd.io.fits.scan import Cards, FitsFile, HduInfo, scan_fits
from lazyccd.io.fits.storage import AUXILIARY, COMPANIONS
from lazyccd.io.names import is_url
from lazyccd.kernels.block import MAPS

logger = logging.getLogger(__name__)

Role: TypeAlias = Literal["image", "std", "var", "ivar", "mask", "kept"]
"""Role of an extension: a frame, its uncertainty, its mask, or something that is only copied."""

ROLES: tuple[Role, ...] = ("image", "std", "var", "ivar", "mask", "kept")

UNCERTAINTY_NAMES: dict[str, UncertaintyType] = {
    "UNCERT": "std",
    "ERR": "std",
    "ERROR": "std",
    "SIGMA": "std",
    "VAR": "var",
    "VARIANCE": "var",
    "IVAR": "ivar",
}
"""Names of extensions that hold the uncertainty, the first that is there, and its type."""

MASK_NAMES = ("DQ", "MASK", "BPM")
"""Names of extensions that hold the mask, the first that is there."""

ORDER = {name: i for i, name in enumerate((*UNCERTAINTY_NAMES, *MASK_NAMES))}
COMPANION_FILES: dict[str, tuple[str, Role]] = {"oow": (UNCERTAINTY, "ivar"), "ood": (MASK, "mask")}
"""Parts of the names of companion files of an ``ooi`` image (NOIRLab's pipelines), and what they hold."""

BAD = "bad"
"""Plane of a file that says in 0 and 1, where 1 is bad, what another mask says in full."""


class Companion(NamedTuple):
    """An image that is a plane of a frame."""

    file: FitsFile
    hdu: HduInfo
    kind: UncertaintyType = "std"
    """As what an uncertainty is stored."""


Companions: TypeAlias = dict[int, dict[str, Companion]]
"""For each image, by the number of its HDU: its planes by their names in a frame."""


def check_roles(roles: Mapping[str, Role] | None) -> dict[str, Role]:
    """Check roles and return them by names in upper case."""
    wrong = [f"{name}: {role!r}" for name, role in (roles or {}).items() if role not in ROLES]
    if wrong:
        raise ParameterError(f"roles {', '.join(wrong)} must be one of {', '.join(ROLES)}.")
    return {name.upper(): role for name, role in (roles or {}).items()}


def role_of(hdu: HduInfo, roles: Mapping[str, Role]) -> Role:
    """Return the role of an HDU by its name."""
    name = hdu.name.upper()
    if not hdu.is_plane:
        return "kept"
    if name in roles:
        return roles[name]
    if name in UNCERTAINTY_NAMES:
        return UNCERTAINTY_NAMES[name]
    if name in MASK_NAMES:
        return "mask"
    return "kept" if name in COMPANIONS or name in AUXILIARY else "image"


def images_of(file: FitsFile, roles: Mapping[str, Role] | None = None) -> list[HduInfo]:
    """Return the images of a file that are frames."""
    return [hdu for hdu in file.hdus if role_of(hdu, roles or {}) == "image"]


def companions_of(file: FitsFile, roles: Mapping[str, Role] | None = None) -> Companions:
    """Return the planes of each image of a file.

    Parameters
    ----------
    file
        Its HDUs.
    roles
        What extensions are, by EXTNAME in upper case, where their names do not tell or tell something else.
    """
    roles = roles or {}
    found: Companions = {}
    mains = images_of(file, roles) or [hdu for hdu in file.hdus if hdu.is_plane][:1]
    indices = {hdu.index for hdu in mains}
    planes = [hdu for hdu in file.hdus if hdu.is_plane and hdu.index not in indices]
    # In the order of the names and not of the file: where DQ and MASK both exist, DQ has more to say.
    for hdu in sorted(planes, key=lambda hdu: ORDER.get(hdu.name.upper(), -1)):
        role = role_of(hdu, roles)
        # Maps of a stack, such as n_used, are ours; a role that the user gives still wins.
        is_map = hdu.name.lower() in MAPS and hdu.name.upper() not in roles
        if role == "kept" and not is_map:
            continue
        main = _owner(hdu, mains)
        if main is None:
            logger.warning(
                "%s%s has shape %s and no image of the file has; ignored.", file.path, hdu.label, hdu.plane_shape
            )
            continue
        name = hdu.name.lower() if is_map else MASK if role == "mask" else UNCERTAINTY
        kind = _stored_as(file, hdu, role) if name == UNCERTAINTY else "std"
        some = found.setdefault(main.index, {})
        if name == MASK and name in some and hdu.name.upper() != some[name].hdu.name.upper():
            name = BAD  # MASK beside DQ says the same
        some.setdefault(name, Companion(file, hdu, kind))
    return found


def _owner(hdu: HduInfo, mains: list[HduInfo]) -> HduInfo | None:
    """Return the image that a plane belongs to."""
    same_shape = [main for main in mains if main.plane_shape == hdu.plane_shape]
    # EXTVER pairs SCI, ERR and DQ of HST; the primary has no EXTVER that could pair.
    same = [main for main in same_shape if main.ver == hdu.ver or main.index == 0] or same_shape
    # CCDData and LSST write planes behind their image and give none a version.
    before = [main for main in same if main.index < hdu.index]
    return before[-1] if before else next(iter(same), None)


def _stored_as(file: FitsFile, hdu: HduInfo, role: Role) -> UncertaintyType:
    """Return the type of an uncertainty: what its UTYPE says, else what its name means."""
    # CCDData names the extension UNCERT whatever its type is, and says it in UTYPE.
    utype = Cards(hdu.header.replace("\n", ""), f"{file.path}{hdu.label}").get("UTYPE")
    for kind, cls in UNCERTAINTY_CLASSES.items():
        if utype in {kind, cls}:
            return kind  # type: ignore[return-value]
    return role  # type: ignore[return-value]


def companion_files(file: FitsFile) -> Companions:
    """Return the planes that files beside an ``ooi`` file hold: weights (``oow``) and data quality (``ood``)."""
    found: Companions = {}
    path = Path(file.path)
    # Behind a URL each guess would be a request, and most files have no companion.
    if is_url(file.path) or not re.search(r"_ooi_", path.name):
        return found
    for part, (name, role) in COMPANION_FILES.items():
        other = path.with_name(path.name.replace("_ooi_", f"_{part}_", 1))
        if not other.is_file():
            continue
        planes = scan_fits(other)
        for main in images_of(file):
            for hdu in planes.hdus:
                # Companion files repeat the extensions of the image one by one, names included.
                same = (hdu.name.upper(), hdu.ver, hdu.plane_shape) == (main.name.upper(), main.ver, main.plane_shape)
                if hdu.is_plane and same:
                    kind: UncertaintyType = "ivar" if role == "ivar" else "std"
                    found.setdefault(main.index, {})[name] = Companion(planes, hdu, kind)
    return found

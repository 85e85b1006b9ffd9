"""Where the pixels of an amplifier lie on its detector, as headers say it.

DATASEC (the whole image without one) holds what CCDSEC or DETSEC says in unbinned pixels of the detector or the focal
plane; a section that is written backwards is flipped. CCDSUM is the binning, which the lengths of the sections must have.
Where there is no such section, matrices and shifts of NOAO's dictionary say it, and where there are both they must agree:

1. image = LTM x detector + LTV;
2. amplifier = ATM x detector + ATV, where AMPSEC says which pixels of the amplifier the data are;
3. focal plane = DTM x detector + DTV, where the detector is the image itself if nothing says how it lies on it.

References
----------
NOAO Image Data Structure Definitions, Mosaic Camera FITS Keyword Dictionary, version 1 (AMPSEC, ATMn_n, DTMn_n, LTMn_n).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lazyccd.errors import SectionError
from lazyccd.frame.header_values import NOTHING
from lazyccd.sections import YX, Region, Section, parse_section

UNBOUNDED = (10**9, 10**9)
"""The image that DETSEC and CCDSEC are sections of: nobody says how large a focal plane is."""


class Placement(NamedTuple):
    """Where the data of an image lie."""

    data: Region
    """The data section, in pixels of the image that was read."""

    target: Region
    """The same pixels on the detector, unbinned."""

    step: YX
    """-1 for an axis that is flipped."""

    binning: YX
    """Pixels of the detector in one of the image."""


def read_section(header: Mapping[str, Any], key: str) -> Section | None:
    """Return a section of a header; None without one, or if it says that nobody knows.

    Raises
    ------
    SectionError
        Raised if it is no section, or has a step.
    """
    value = header.get(key)
    text = "" if value is None else str(value).strip()
    # [0:0,0:0] is how some cameras write that there is none
    if text.upper() in NOTHING or not any(digit in text for digit in "123456789"):
        return None
    section = parse_section(text, UNBOUNDED)
    if abs(section.step.y) != 1 or abs(section.step.x) != 1:
        raise SectionError(f"{key} = {text!r} has a step; correct it by with_header.")
    return section


def size_of(header: Mapping[str, Any], key: str) -> Region | None:
    """Return the section of the whole detector; None without one or if it is empty."""
    try:
        section = read_section(header, key)
    except SectionError:
        return None
    return None if section is None else section.region


def placement(
    header: Mapping[str, Any], key: str, label: str = "frame", whole: Region | None = None
) -> Placement | None:
    """Return where the data of an image lie on the detector; None if the header does not say it.

    Parameters
    ----------
    header
        Its header.
    key
        ``CCDSEC`` or ``DETSEC``.
    label
        How messages name the image.
    whole
        The whole image, if the header has neither DATASEC nor NAXIS1 and NAXIS2.

    Raises
    ------
    SectionError
        Raised if sections contradict each other, the binning, or the matrices.

    Examples
    --------
    >>> placement({"DATASEC": "[1:512,1:512]", "DETSEC": "[1025:2048,3072:2049]", "CCDSUM": "2 2"}, "DETSEC")
    Placement(data=Region(y0=0, y1=512, x0=0, x1=512), target=Region(y0=2048, y1=3072, x0=1024, x1=2048), step=YX(y=-1, x=1), binning=YX(y=2, x=2))
    """
    data = read_section(header, "DATASEC") or _whole(header) or (None if whole is None else Section(whole))
    if data is None:
        return None
    other = _by_amplifier(header, data) if key == "CCDSEC" else _by_detector(header, data)
    target = read_section(header, key)
    if target is None:
        return (_physical(header, data.region) or other) if key == "CCDSEC" else other
    placed = _by_section(header, key, label, data, target)
    if other is not None and other != placed:
        how = "AMPSEC, ATM and ATV place" if key == "CCDSEC" else "DTM and DTV place"
        section = Section(other.target, YX(other.step.y * data.step.y, other.step.x * data.step.x)).to_fits()
        raise SectionError(
            f"{label}: {key} is {target.to_fits()}, and {how} the data at {section}; these contradict each other: correct "
            "one by with_header, or take the others out with None."
        )
    return placed


def _by_section(header: Mapping[str, Any], key: str, label: str, data: Section, target: Section) -> Placement:
    """Return where a section places the data."""
    step = YX(data.step.y * target.step.y, data.step.x * target.step.x)
    factors = [divmod(t, d) for t, d in zip(target.region.shape, data.region.shape, strict=True)]
    binning = YX(factors[0][0], factors[1][0])
    stated = binning_of(header)
    if any(rest or not factor for factor, rest in factors) or (stated is not None and stated != binning):
        said = "" if stated is None else f", and CCDSUM is {header.get('CCDSUM')!r}"
        raise SectionError(
            f"{label}: DATASEC {data.to_fits()} has {_size(data.region)} pixels and {key} {target.to_fits()} has "
            f"{_size(target.region)}{said}; these contradict each other: correct them by with_header."
        )
    return Placement(data.region, target.region, step, binning)


def _whole(header: Mapping[str, Any]) -> Section | None:
    """Return the section of the whole image."""
    ny, nx = header.get("NAXIS2"), header.get("NAXIS1")
    return None if not nx or not ny else Section(Region(0, int(ny), 0, int(nx)))


def _size(region: Region) -> str:
    return f"{region.shape.x} x {region.shape.y}"


def binning_of(header: Mapping[str, Any]) -> YX | None:
    """Return the binning that CCDSUM states; None without one."""
    numbers = [int(word) for word in str(header.get("CCDSUM", "")).split() if word.isdigit()]
    return YX(numbers[1], numbers[0]) if len(numbers) == 2 and min(numbers) > 0 else None


def _physical(header: Mapping[str, Any], data: Region) -> Placement | None:
    """Return where LTV and LTM place the data; None without them, or if that is between pixels."""
    return _before(header, "LT", data)


def _by_amplifier(header: Mapping[str, Any], data: Section) -> Placement | None:
    """Return where AMPSEC, ATM and ATV place the data on the detector; None without them."""
    try:
        section = read_section(header, "AMPSEC")
    except SectionError:
        return None
    placed = None if section is None else _before(header, "AT", section.region)
    if section is None or placed is None or placed.binning != (1, 1):
        return None
    factors = [divmod(t, d) for t, d in zip(section.region.shape, data.region.shape, strict=True)]
    if any(rest or not factor for factor, rest in factors):
        return None
    step = YX(*(a * b * c for a, b, c in zip(data.step, section.step, placed.step, strict=True)))
    return Placement(data.region, placed.target, step, YX(factors[0][0], factors[1][0]))


def _by_detector(header: Mapping[str, Any], data: Section) -> Placement | None:
    """Return where DTM and DTV place the data in the focal plane; None without them, or if they count binned pixels."""
    if "DTM1_1" not in header or "DTM2_2" not in header:
        return None
    try:
        section = read_section(header, "CCDSEC")
        ccd = None if section is None else _by_section(header, "CCDSEC", "", data, section)
    except SectionError:
        return None
    ccd = ccd or _physical(header, data.region) or _by_amplifier(header, data)
    if ccd is None:
        if binning_of(header) not in {None, (1, 1)}:
            return None
        ccd = Placement(data.region, data.region, YX(1, 1), YX(1, 1))
    inverse: dict[str, float] = {}
    for axis in (1, 2):
        scale, shift = float(header[f"DTM{axis}_{axis}"]), float(header.get(f"DTV{axis}", 0.0))
        if abs(scale) != 1:
            return None
        inverse |= {f"LTM{axis}_{axis}": scale, f"LTV{axis}": -shift * scale}
    placed = _before(inverse, "LT", ccd.target)
    if placed is None:
        return None
    step = YX(ccd.step.y * placed.step.y, ccd.step.x * placed.step.x)
    return Placement(data.region, placed.target, step, ccd.binning)


def _before(header: Mapping[str, Any], name: str, after: Region) -> Placement | None:
    """Return where pixels come from by after = M x before + V; None without cards, or if that is between pixels."""
    if f"{name}M1_1" not in header or f"{name}M2_2" not in header:
        return None
    ranges, steps, sizes = [], [], []
    for axis, (first, stop) in ((2, after[:2]), (1, after[2:])):
        scale, shift = float(header[f"{name}M{axis}_{axis}"]), float(header.get(f"{name}V{axis}", 0.0))
        # edges and not centres of pixels are moved: binned pixels then end where unbinned ones do
        size = round(1 / abs(scale)) if scale else 0
        ends = sorted((edge - shift + 0.5) / scale for edge in (first, stop)) if scale else [0.5, 0.5]
        low, high = round(ends[0] - 0.5), round(ends[1] - 0.5)
        if size < 1 or abs(ends[0] - 0.5 - low) > 1e-6 or high - low != size * (stop - first) or low < 0:
            return None
        ranges.append((low, high))
        steps.append(1 if scale > 0 else -1)
        sizes.append(size)
    return Placement(after, Region(*ranges[0], *ranges[1]), YX(*steps), YX(*sizes))

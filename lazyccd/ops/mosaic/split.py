"""Split an image into its amplifiers: find where each lies, and make a frame of it.

Headers name amplifiers in many ways: by letters behind a keyword (DATASECA), by numbers (ASEC11), or by a list in one card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits

from lazyccd.errors import ArgumentTypeError, ParameterError, SectionError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.detector_geometry import binning_of, read_section
from lazyccd.frame.header import REMOVED, append_cards, header_to_text, header_view
from lazyccd.frame.header_values import UnusableError, find_number, read_numbers
from lazyccd.frame.output_header import product_header
from lazyccd.frame.tree import make_tree, over_trees
from lazyccd.frame.units import unit_to_text
from lazyccd.ops.mosaic.assemble import attrs_of_parts
from lazyccd.sections import YX, Region, Section, parse_section

KINDS = {
    "DATASEC": ("DATASEC", "DSEC"),
    "BIASSEC": ("BIASSEC", "BSEC"),
    "TRIMSEC": ("TRIMSEC", "TSEC"),
    "CCDSEC": ("CCDSEC", "CSEC"),
    "DETSEC": ("DETSEC",),
    "AMPSEC": ("ASEC",),
    "GAIN": ("GAIN", "GTGAIN", "EGAIN"),
    "RDNOISE": ("RDNOISE", "GTRON", "RON"),
    "SATURATE": ("SATURAT",),
}
"""For each keyword of an amplifier, what stands before the amplifier's name in the header of an image of several."""

OWN = ("DATASEC", "BIASSEC", "TRIMSEC", "AMPSEC")
"""Sections of the image itself."""

LISTED = {"GAIN": "gain", "RDNOISE": "readnoise", "SATURATE": "saturate"}
"""Keywords of an image that may list a number for each amplifier, and the names by which `values.UNITS` has their units."""

OF_TAP = re.compile(rf"(?!SATURATE$)({'|'.join(word for words in KINDS.values() for word in words)})([A-Z]|\d\d?)$")
"""Keywords of one amplifier. SATURATE is that of the whole image and not of an amplifier E."""

LIT = ("DATASEC", "TRIMSEC", "AMPSEC")
"""Sections of which each amplifier has at least one."""

_MAY_HAVE_TAPS = re.compile(
    rf"^(?:{'|'.join(word for kind in LIT for word in KINDS[kind])})(?:[A-Z]|\d\d?) *=", re.MULTILINE
)


@dataclass(frozen=True)
class Tap:
    """One amplifier of an image."""

    data: Section
    """Its data section; read backwards where it is to be flipped."""

    sections: Mapping[str, Region] = field(default_factory=dict)
    """Its other sections of the image."""

    cards: Mapping[str, Any] = field(default_factory=dict)
    """Other cards of its own."""

    place: Section | None = None
    """Where the data lie on the detector, in binned pixels, if no card says it."""

    whole: tuple[int, int] = (0, 0)
    """Shape of the detector, in binned pixels."""

    @property
    def region(self) -> Region:
        """The part of the image that holds all sections."""
        region = self.data.region
        for other in self.sections.values():
            region = region.union(other)
        return region


@over_trees
def split_amplifiers(ccd: xr.Dataset, sections: Mapping[str, str | Mapping[str, Any]] | None = None) -> xr.DataTree:
    """Split an image into its amplifiers: the inverse of `assemble`.

    Parameters
    ----------
    ccd
        A frame: an image that was put together, or one HDU into which several amplifiers were read out.
    sections
        For each amplifier by name, its section of the frame, written backwards where its pixels are to be flipped; or
        header cards, of which DATASEC and BIASSEC, TRIMSEC are sections of the frame, CCDSEC and DETSEC say where the
        data lie, and others, such as GAIN, are its own. If None, keywords with the name of an amplifier behind them:
        DATASECA, BIASSECA, TRIMSECA, CCDSECA, DETSECA, GAINA, RDNOISEA, or ASEC11, BSEC11, DSEC11, TSEC11, CSEC11, GTGAIN11,
        GTRON11.

    Returns
    -------
    xr.DataTree
        Lazy, nothing is copied. A frame for each amplifier: the part of the image that holds its sections, with these in its header as they
        lie in it. Where nothing says where data lie on the detector, they lie side by side as in the image. A GAIN, RDNOISE or
        SATURATE that lists numbers, such as ``'1.5, 1.6'`` or ``'1,5; 1,6'``, gives each amplifier its own: in the order of
        ``sections``, or as their keywords are numbered. So do GAIN1, GAIN2, ... if there is one for each amplifier.

    Raises
    ------
    SectionError
        Raised if there are no sections, or one lies outside of the image.
    ParameterError
        Raised if data sections without a place on the detector overlap, or a keyword lists more or fewer numbers than there
        are amplifiers.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import assemble, from_ccddata
    >>> frame = from_ccddata(CCDData(np.arange(8.0).reshape(2, 4), unit="adu", meta={"GAIN": "[1.5, 1.6]"}))
    >>> tree = split_amplifiers(frame, {"A": "[1:2,1:2]", "B": "[4:3,1:2]"})
    >>> tree["B"]["data"].values, header_view(tree["B"].attrs["header"])["GAIN"]
    (array([[3., 2.],
           [7., 6.]]), 1.6)
    >>> assemble(tree)["data"].values[0]
    array([0., 1., 2., 3.])
    """
    image = resolve(ccd, maps=True)
    taps = taps_of(image.header, image.shape, sections)
    return make_tree({name: tap_image(image, name, tap).to_dataset() for name, tap in taps.items()}, {})


def taps_of(
    header: str, shape: tuple[int, int], sections: Mapping[str, str | Mapping[str, Any]] | None
) -> dict[str, Tap]:
    """Return the amplifiers of an image of a shape that a user or its header names.

    Raises
    ------
    SectionError
        Raised if there are none, or a section is none of the image.
    ParameterError
        Raised if a keyword lists more or fewer numbers than there are amplifiers.
    """
    if sections is not None and not isinstance(sections, Mapping):
        raise ArgumentTypeError(
            f"sections is a {type(sections).__name__} and must be a mapping of names to sections, such as {{'A': '[1:50,1:100]'}}."
        )
    given = _from_header(header) if sections is None else sections
    if not given:
        raise SectionError(
            "the header has no sections of amplifiers, such as DATASECA or ASEC11; give sections= to split_amplifiers()."
        )
    taps = {name: _tap(name, value, shape) for name, value in given.items()}
    for keyword in LISTED:
        taps = _with_listed(taps, keyword, header)
    if all(tap.place is None and not {"CCDSEC", "DETSEC"} & tap.cards.keys() for tap in taps.values()):
        places = side_by_side([tap.data.region for tap in taps.values()], list(taps))
        whole = max(place.y1 for place in places), max(place.x1 for place in places)
        taps = {
            name: replace(tap, place=Section(place), whole=whole)
            for (name, tap), place in zip(taps.items(), places, strict=True)
        }
    return taps


def amplifiers_in(text: str) -> tuple[str, ...]:
    r"""Return the names of the amplifiers whose sections of the image a header has.

    Examples
    --------
    >>> (
    ...     amplifiers_in("DATASECA= '[1:4,1:4]'\nDATASECB= '[5:8,1:4]'\nGAINB   = 1.6"),
    ...     amplifiers_in("DATASEC = '[1:8,1:4]'"),
    ... )
    (('A', 'B'), ())
    """
    # Most headers have none, and a night has thousands of headers.
    return tuple(_from_header(text)) if _MAY_HAVE_TAPS.search(text) else ()


_MAY_HAVE_GAINS = re.compile(
    rf"^(?:{'|'.join(word for kind in ('GAIN', 'RDNOISE') for word in KINDS[kind])})(?:[AB]|0?[12]) *=", re.MULTILINE
)


def gains_in(text: str) -> tuple[str, ...]:
    r"""Return the names of the amplifiers of which a header has a gain or a read noise each; empty of less than two.

    Examples
    --------
    >>> gains_in("GAIN1   = 1.9\nGAIN2   = 2.1"), gains_in("GAIN    = 1.9"), gains_in("GAIN1   = 1.9")
    (('1', '2'), (), ())
    """
    if not _MAY_HAVE_GAINS.search(text):
        return ()
    header = header_view(text)
    names = max((tuple(_numbered(header, keyword)) for keyword in ("GAIN", "RDNOISE")), key=len)
    return names if len(names) > 1 else ()


def _numbered(header: Mapping[str, Any], keyword: str) -> dict[str, float]:
    """Return the numbers that a header has of each amplifier, such as GAIN1 and GAIN2, by the name of the amplifier."""
    found: dict[str, float] = {}
    for key, value in header.items():
        match = OF_TAP.match(key)
        if match is not None and match[1] in KINDS[keyword] and (number := find_number(value)) is not None:
            found.setdefault(match[2], number)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _from_header(text: str) -> dict[str, dict[str, Any]]:
    """Return the cards of each amplifier that a header names, under the keywords that they have for one."""
    found: dict[str, dict[str, Any]] = {}
    header = header_view(text)
    kinds = {word: kind for kind, words in KINDS.items() for word in words}
    for keyword in header:
        match = OF_TAP.match(keyword)
        if match is not None:
            found.setdefault(match[2], {})[kinds[match[1]]] = header[keyword]
    numbered = sorted(found.items(), key=lambda item: (len(item[0]), item[0]))  # 10 comes after 9
    return {tap: cards for tap, cards in numbered if cards.keys() & {*LIT}}


def _with_listed(taps: dict[str, Tap], keyword: str, text: str) -> dict[str, Tap]:
    """Return amplifiers with their numbers of a list in the image's header; what an amplifier has of its own stays.

    Where there is no list, GAIN1, GAIN2, ... are those of the amplifiers of these names, or of as many in their order.
    """
    header = header_view(text)
    numbered = _numbered(header, keyword)
    if len(numbered) == len(taps) > 1:
        own = numbered if numbered.keys() == taps.keys() else dict(zip(taps, numbered.values(), strict=True))
        return {name: replace(tap, cards={keyword: own[name], **tap.cards}) for name, tap in taps.items()}
    value = header.get(keyword)
    try:
        numbers = read_numbers(value, LISTED[keyword])
    except UnusableError:  # refused by what needs the number
        return taps
    if len(numbers) == 1 or all(keyword in tap.cards for tap in taps.values()):
        return taps
    if len(numbers) != len(taps):
        raise ParameterError(
            f"{keyword} = {value!r} lists {len(numbers)} numbers, and there are {len(taps)} amplifiers ({', '.join(taps)}); "
            f"give {keyword} for each in sections=, or correct the header by with_header."
        )
    return {
        name: replace(tap, cards={keyword: REMOVED if number is None else number, **tap.cards})
        for (name, tap), number in zip(taps.items(), numbers, strict=True)
    }


def _tap(name: str, given: str | Mapping[str, Any], shape: tuple[int, int]) -> Tap:
    """Return an amplifier from its section, or from its cards."""
    if isinstance(given, str):
        section = _section(name, given, shape)
        return Tap(section, place=section, whole=shape)
    cards = {key.upper(): value for key, value in given.items()}
    own = {key: _section(name, str(cards[key]), shape) for key in OWN if read_section(cards, key) is not None}
    # some cameras state the data only as what is to be kept, others only as what an amplifier read
    data = own.get("DATASEC") or own.get("TRIMSEC") or own.get("AMPSEC")
    if data is None:
        raise SectionError(f"amplifier {name!r} has {sorted(cards)} and needs DATASEC; give it in sections=.")
    others = {key: section.region for key, section in own.items() if key != "DATASEC"}
    return Tap(Section(data.region), others, {key: value for key, value in cards.items() if key not in OWN})


def _section(name: str, text: str, shape: tuple[int, int]) -> Section:
    """Return a section of the image, without a step."""
    try:
        section = parse_section(text, shape)
    except SectionError as error:
        raise SectionError(f"amplifier {name!r}: {error}") from error
    if abs(section.step.y) != 1 or abs(section.step.x) != 1:
        raise SectionError(f"amplifier {name!r}: section {text!r} has a step; give every pixel.")
    return section


def side_by_side(regions: Sequence[Region], names: Sequence[str]) -> list[Region]:
    """Return regions moved together along both axes, so that nothing is left between them.

    Raises
    ------
    ParameterError
        Raised if they overlap.

    Examples
    --------
    >>> side_by_side([Region(0, 9, 4, 8), Region(0, 9, 20, 24)], ["A", "B"])
    [Region(y0=0, y1=9, x0=0, x1=4), Region(y0=0, y1=9, x0=4, x1=8)]
    """
    starts = []
    for axis in (0, 1):
        ranges = sorted({region[2 * axis : 2 * axis + 2] for region in regions})
        if any(after[0] < before[1] for before, after in pairwise(ranges)):
            raise ParameterError(
                f"the data sections of {', '.join(names)} do not lie in rows and columns, so nothing says where they lie on "
                "the detector; give CCDSEC for each."
            )
        lengths = [stop - first for first, stop in ranges]
        starts.append(dict(zip(ranges, np.cumsum([0, *lengths]).tolist(), strict=False)))
    moved = []
    for region in regions:
        y0, x0 = starts[0][region[:2]], starts[1][region[2:]]
        moved.append(Region(y0, y0 + region.shape.y, x0, x0 + region.shape.x))
    return moved


def tap_image(image: Image, name: str, tap: Tap) -> Image:
    """Return the image of one amplifier."""
    region, step = tap.region, tap.data.step
    part = image.window(Section(region, step).first, step, region.shape)
    header = _header_of_tap(product_header(image.header, part.y, part.x, unit_to_text(part.units)), name, tap)
    # an amplifier is a frame of its own, and sections in its header count its own pixels
    y, x = np.arange(region.shape.y), np.arange(region.shape.x)
    return replace(part, header=header, y=y, x=x, attrs=attrs_of_parts(image))


def tap_header(header: str, name: str, tap: Tap) -> str:
    """Return the header of one amplifier of an image that is stored with a header, as `tap_image` has it but for BUNIT."""
    y0, y1, x0, x1 = tap.region
    y, x = np.arange(y0, y1)[:: tap.data.step.y], np.arange(x0, x1)[:: tap.data.step.x]
    return _header_of_tap(product_header(header, y, x, ""), name, tap)


def _header_of_tap(header: fits.Header, name: str, tap: Tap) -> str:
    """Return the header of a part of an image with the cards of the amplifier that lies there."""
    region, step = tap.region, tap.data.step
    own = {"DATASEC": tap.data.region, **tap.sections}
    # cards of the other amplifiers go, or this one would split again
    cards: list[tuple[str, Any, str]] = [(key, REMOVED, "") for key in header if OF_TAP.match(key)]
    cards += [("CHECKSUM", REMOVED, ""), ("DATASUM", REMOVED, ""), ("EXTNAME", name, "name of the amplifier")]
    cards += [("NAXIS1", region.shape.x, ""), ("NAXIS2", region.shape.y, "")]
    cards += [(key, _within(section, region, step).to_fits(), "") for key, section in own.items()]
    cards += [(key, value, "") for key, value in tap.cards.items()]
    if tap.place is not None:
        cards += _placed(tap.place, tap.whole, binning_of(header) or YX(1, 1))
    return append_cards(header_to_text(header), cards)


def _within(section: Region, outer: Region, step: YX) -> Section:
    """Return a section of the image as it lies in a part of it that may be flipped."""
    y0, y1, x0, x1 = section.shift(-outer.y0, -outer.x0)
    height, width = outer.shape
    rows = (y0, y1) if step.y > 0 else (height - y1, height - y0)
    columns = (x0, x1) if step.x > 0 else (width - x1, width - x0)
    return Section(Region(*rows, *columns))


def _placed(place: Section, whole: tuple[int, int], binning: YX) -> list[tuple[str, Any, str]]:
    """Return the cards that say where the data lie on the detector, in unbinned pixels."""
    y0, y1, x0, x1 = place.region
    by, bx = binning
    unbinned = Section(Region(y0 * by, y1 * by, x0 * bx, x1 * bx), place.step)
    size = Region(0, whole[0] * by, 0, whole[1] * bx)
    return [("CCDSEC", unbinned.to_fits(), ""), ("CCDSIZE", size.to_fits(), "")]

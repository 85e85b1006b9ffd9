"""Assemble amplifiers into their detector and detectors into the focal plane, each read where it lies.

All parts of an image are one step of the plan: a chunk reads the parts that it overlaps, and no others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.errors import ArgumentTypeError, ParameterError, SectionError
from lazyccd.frame.core import DATA, Image, resolve
from lazyccd.frame.detector_geometry import Placement, placement, read_section, size_of
from lazyccd.frame.header import REMOVED, WCS_KEYWORD, append_cards, header_from_text, header_view
from lazyccd.frame.output_header import product_header
from lazyccd.frame.stack_header import common_header
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.frame.units import conversion_factor
from lazyccd.frame.wcs import lattice
from lazyccd.kernels import assemble as kernels
from lazyccd.plan.chunks import default_grid
from lazyccd.plan.footprints import Placed
from lazyccd.plan.steps import Apply, Input, make_dtypes, make_params
from lazyccd.sections import YX, Region, Section

SectionKey: TypeAlias = Literal["CCDSEC", "DETSEC"]
SIZES = {"CCDSEC": "CCDSIZE", "DETSEC": "DETSIZE"}
"""Keyword of the section that holds all others."""

OF_PARTS = re.compile(
    r"(BIASSEC|TRIMSEC|AMPSEC|(LTM|ATM|DTM|LTV|ATV|DTV)\d.*|INHERIT|EXTNAME|EXTVER|CHECKSUM|DATASUM)$"
)
"""Keywords that are about a part and not about the whole."""


@dataclass(frozen=True)
class Amplifier:
    """A frame of a tree and where it lies."""

    name: str
    image: Image
    place: Placement

    def lines(self, axis: int, origin: int) -> tuple[int, int, int, int, int]:
        """Return start and stop in the image, start and stop in what is put together, and direction, along an axis."""
        begin, end = self.place.data[2 * axis : 2 * axis + 2]
        positions = (self.image.y, self.image.x)[axis]
        first, step = lattice(positions, "yx"[axis])
        # sections count unbinned pixels of the file; after a step or binning the coordinates no longer match them
        if abs(step) != 1 or first % 1:
            raise SectionError(
                f"{self.name}: every {step:g}th pixel along {'yx'[axis]} cannot be assembled; assemble before binning."
            )
        last = first + step * (len(positions) - 1)
        # the coordinates say which pixels are left after a trim, so DATASEC holds for trimmed frames too
        low, high = max(begin, int(min(first, last))), min(end, int(max(first, last)) + 1)
        if low >= high:
            raise SectionError(
                f"{self.name}: DATASEC {self.place.data.to_fits()} has no pixel in the frame, which was trimmed to other "
                f"pixels ({min(first, last) + 1:g} to {max(first, last) + 1:g} along {'yx'[axis]})."
            )
        size = self.place.binning[axis]
        start = (self.place.target[2 * axis] - origin) // size
        to = start + (low - begin if self.place.step[axis] > 0 else end - high)
        source = int(low - first if step > 0 else first - (high - 1))
        return source, source + high - low, to, to + high - low, self.place.step[axis] * int(step)

    def positions(self, axis: int, origin: int, length: int) -> npt.NDArray[Any]:
        """Return for each line of what is put together which line of the image that was read lies there."""
        begin, end = self.place.data[2 * axis : 2 * axis + 2]
        start = (self.place.target[2 * axis] - origin) // self.place.binning[axis]
        numbers = np.arange(length) - start
        return begin + numbers if self.place.step[axis] > 0 else end - 1 - numbers


def assemble(
    tree: xr.DataTree, section: SectionKey | None = None, group: str | None = None
) -> xr.Dataset | xr.DataTree:
    """Assemble the data sections of amplifiers into their detector, or those of detectors into the focal plane.

    Parameters
    ----------
    tree
        Frames with DATASEC (their whole image without one) and CCDSEC or DETSEC in their headers, trimmed or not.
    section
        Keyword that says where each frame lies: ``CCDSEC``, on its detector, or ``DETSEC``, in the focal plane. If None,
        CCDSEC where all frames of a detector have one and these do not overlap, else DETSEC.
    group
        Keyword that names the detector of a frame, such as ``CCDNAME``: each is put together by itself. Frames of one branch
        of the tree are a detector of their own too.

    Returns
    -------
    xr.Dataset or xr.DataTree
        Lazy, one task per chunk of 2048 x 2048 pixels, in which each frame is read where it lies, flipped if its sections
        say so; nothing is copied. The shape is that of CCDSIZE or DETSIZE, else the least that holds all. Pixels of no frame
        are NaN and ``NO_DATA``. With several detectors, a tree of them with the root as it was.

        The header is that of the first frame; keywords that differ are taken out and listed in HISTORY, and HISTORY and
        COMMENT that differ have the name of their frame in front. DATASEC is the whole image, LTV and LTM give detector
        pixels, and the WCS stays if it is the same for all.

    Raises
    ------
    SectionError
        Raised if a frame has no section, sections contradict each other, overlap or lie outside.
    ParameterError
        Raised if frames of a detector are binned differently.
    UnitError
        Raised if the units of the frames cannot be converted to those of the first.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> left, right = (
    ...     from_ccddata(
    ...         CCDData(np.array([[1.0, 2.0, 0.0]]), unit="adu", meta={"DATASEC": "[1:2,1:1]", "DETSEC": where})
    ...     )
    ...     for where in ("[1:2,1:1]", "[4:3,1:1]")
    ... )
    >>> assemble(xr.DataTree.from_dict({"A": left, "B": right}))["data"].values
    array([[1., 2., 2., 1.]])
    """
    if not isinstance(tree, xr.DataTree):
        raise ArgumentTypeError(f"assemble() got a {type(tree).__name__} and needs a tree of frames; see open_mef.")
    if section not in {None, *SIZES}:
        raise ParameterError(f"section {section!r} must be 'CCDSEC', 'DETSEC' or None.")
    detectors: dict[str, dict[str, Image]] = {}
    for name, frame in frames_of(tree).items():
        detector = _detector_of(name, frame, group)
        detectors.setdefault(detector, {})[name] = resolve(frame, f"frame {name!r}")
    root = header_view(str(tree.attrs.get("header", "")))
    made = {name: _assembled(images, section, root).to_dataset() for name, images in detectors.items()}
    if list(made) == [""]:  # a tree of one detector is that detector
        return made[""]
    return detectors_like(tree, {name: (frame, list(detectors[name])) for name, frame in made.items()})


def detectors_like(tree: xr.DataTree, detectors: Mapping[str, tuple[xr.Dataset, list[str]]]) -> xr.DataTree:
    """Return a tree of detectors, given with the names of their amplifiers in another; each stands where its first did."""
    owners = {part: name for name, (_, parts) in detectors.items() for part in parts}
    hdus: list[dict[str, Any]] = []
    for hdu in tree.attrs.get("hdus", ()):
        owner = owners.get(hdu.get("frame", ""))
        if "frame" not in hdu:
            hdus.append(hdu)
        elif owner and not any(other.get("frame") == owner for other in hdus):
            hdus.append({"frame": owner, "plane": DATA})
    frames = {}
    for name, (frame, _) in detectors.items():
        cards = [("EXTNAME", name.replace("/", "_"), "name of the detector")]
        frames[name] = frame.assign_attrs(header=append_cards(str(frame.attrs["header"]), cards))
    return make_tree(frames, {**tree.attrs, **({"hdus": hdus} if hdus else {})})


def places_of(tree: xr.DataTree) -> tuple[str, Region, dict[str, Placement]]:
    """Return the keyword that places the frames of a tree, the section that holds all, and where those lie that say it."""
    images = {name: resolve(frame) for name, frame in frames_of(tree).items()}
    key = _choose(images)
    places: dict[str, Placement] = {}
    for name, image in images.items():
        try:
            places[name] = _amplifier(name, image, key).place
        except SectionError:  # what can be placed is worth a drawing, though `assemble` would refuse the tree
            continue
    bounds = size_of(header_view(str(tree.attrs.get("header", ""))), SIZES[key])
    for place in places.values():
        bounds = place.target if bounds is None else bounds.union(place.target)
    return key, bounds or Region(0, 0, 0, 0), places


def _detector_of(name: str, frame: xr.Dataset, group: str | None) -> str:
    """Return the name of the detector that a frame belongs to; empty if there is only one."""
    if group is None:
        return name.rpartition("/")[0]
    # names become those of a tree, in which a slash begins a branch
    value = header_view(str(frame.attrs.get("header", ""))).get(group)
    if value is None:
        raise SectionError(f"{name}: the header has no keyword {group!r} that names its detector; give another group=.")
    return str(value).strip().replace("/", "_")


def _assembled(images: Mapping[str, Image], section: SectionKey | None, root: Mapping[str, Any]) -> Image:
    """Return the image of one detector."""
    key = section or _choose(images)
    amplifiers = [_amplifier(name, image, key) for name, image in images.items()]
    _check_binning(amplifiers)
    bounds = _bounds(amplifiers, key, root)
    binning = amplifiers[0].place.binning
    shape = (bounds.shape.y // binning.y, bounds.shape.x // binning.x)
    pieces = []
    for amplifier in amplifiers:
        y0, y1, to_y0, to_y1, ystep = amplifier.lines(0, bounds.y0)
        x0, x1, to_x0, to_x1, xstep = amplifier.lines(1, bounds.x0)
        place = Region(to_y0, to_y1, to_x0, to_x1)
        pieces.append(
            Piece(amplifier.image, Region(y0, y1, x0, x1), place, (ystep, xstep), label=f"frame {amplifier.name!r}")
        )
    _check_places(amplifiers, pieces, key)
    header = _header(amplifiers, key, bounds, shape)
    return replace(paste(pieces, shape), header=header, attrs=attrs_of_parts(amplifiers[0].image))


def attrs_of_parts(image: Image) -> dict[Hashable, Any]:
    """Return the attributes of an image that hold for a detector put together from it, or for an amplifier taken out of it."""
    # these tell writers about the HDU that was read, and neither the detector nor the amplifier is one
    return {key: value for key, value in image.attrs.items() if key not in {"inherited", "squeezed"}}


def _choose(images: Mapping[str, Image]) -> SectionKey:
    """Return the keyword by which frames of one detector are put together."""
    headers = [header_view(image.header) for image in images.values()]
    # CCDSEC of every amplifier may be on its own chip: they overlap then, and only DETSEC tells them apart
    has_detsec = any(_has_section(header, "DETSEC") for header in headers)
    if not has_detsec or all(_has_section(header, "CCDSEC") for header in headers):
        found = [placement(header_view(i.header), "CCDSEC", name, whole=_whole(i)) for name, i in images.items()]
        places = [place.target for place in found if place is not None]
        overlap = any(a.intersect(b).size for i, a in enumerate(places) for b in places[:i])
        if len(places) == len(images) and not overlap:
            return "CCDSEC"
    return "DETSEC" if has_detsec or any("DTM1_1" in header for header in headers) else "CCDSEC"


def _has_section(header: Mapping[str, Any], key: str) -> bool:
    """Return whether a header has a section that is one."""
    try:
        return read_section(header, key) is not None
    except SectionError:
        return False


def _amplifier(name: str, image: Image, key: SectionKey) -> Amplifier:
    """Return a frame and where its header says that it lies."""
    try:
        place = placement(header_view(image.header), key, name, whole=_whole(image))
    except SectionError as error:
        raise SectionError(f"{error}" if name in str(error) else f"{name}: {error}") from error
    if place is None:
        raise SectionError(
            f"{name}: the header has no {key} (or it is unknown), so nothing says where the frame lies; add it by with_header, "
            "or leave the frame out."
        )
    return Amplifier(name, image, place)


def _whole(image: Image) -> Region:
    """Return the part of what was read that an image has, as far as its coordinates tell."""
    (y0, y1), (x0, x1) = ((int(np.floor(p.min())), int(np.ceil(p.max())) + 1) for p in (image.y, image.x))
    return Region(y0, y1, x0, x1)


def _check_binning(amplifiers: Sequence[Amplifier]) -> None:
    """Refuse frames that are not binned alike."""
    first = amplifiers[0]
    for other in amplifiers[1:]:
        if other.place.binning != first.place.binning:
            sizes = [f"{a.name} by {a.place.binning.x} x {a.place.binning.y}" for a in (first, other)]
            raise ParameterError(
                f"frames are binned differently ({', '.join(sizes)}) and cannot be put into one image."
            )


def _bounds(amplifiers: Sequence[Amplifier], key: SectionKey, root: Mapping[str, Any]) -> Region:
    """Return the part of the detector that is shown, in unbinned pixels."""
    header = header_view(amplifiers[0].image.header)
    stated = size_of(header, SIZES[key]) or size_of(root, SIZES[key])
    binning = amplifiers[0].place.binning
    ends = [max(a.place.target[2 * axis + 1] for a in amplifiers) for axis in (0, 1)]
    bounds = stated or Region(0, ends[0], 0, ends[1])
    for amplifier in amplifiers:
        target = amplifier.place.target
        if not bounds.contains(target):
            raise SectionError(
                f"{amplifier.name}: {key} {target.to_fits()} lies outside of {SIZES[key]} {bounds.to_fits()}; correct one of "
                "them by with_header."
            )
        if (target.y0 - bounds.y0) % binning.y or (target.x0 - bounds.x0) % binning.x:
            raise SectionError(
                f"{amplifier.name}: {key} {target.to_fits()} does not start at a multiple of the binning {binning.x} x "
                f"{binning.y} from {bounds.to_fits()}; correct it by with_header."
            )
    return bounds


def _check_places(amplifiers: Sequence[Amplifier], pieces: Sequence[Piece], key: SectionKey) -> None:
    """Refuse frames that overlap."""
    for i, piece in enumerate(pieces):
        for j, other in enumerate(pieces[:i]):
            if piece.place.intersect(other.place).size:
                names = [f"{amplifiers[k].name} {amplifiers[k].place.target.to_fits()}" for k in (j, i)]
                raise SectionError(
                    f"{key} of {' and '.join(names)} overlap; correct one by with_header, or give group= to put each "
                    "detector together by itself."
                )


def _header(amplifiers: Sequence[Amplifier], key: SectionKey, bounds: Region, shape: tuple[int, int]) -> str:
    """Return the header of what is put together."""
    texts = {amplifier.name: amplifier.image.header for amplifier in amplifiers}
    text = common_header(texts, f"lazyccd assemble: by {key} {', '.join(texts)}")
    wcs = _common_wcs(amplifiers, bounds, shape)
    gone = [k for k in header_from_text(text) if OF_PARTS.match(k) or (WCS_KEYWORD.match(k) and k not in (wcs or {}))]
    cards: list[tuple[str, Any, str]] = [(keyword, REMOVED, "") for keyword in dict.fromkeys(gone)]
    cards += [("NAXIS1", shape[1], ""), ("NAXIS2", shape[0], "")]
    cards += [("DATASEC", Region(0, shape[0], 0, shape[1]).to_fits(), ""), (key, bounds.to_fits(), "")]
    cards += _other_section(amplifiers, key)
    binning = amplifiers[0].place.binning
    # IRAF's physical coordinates, which DS9 shows: pixels of the detector, centres of binned ones in the middle of a block
    for axis, (origin, size) in enumerate(((bounds.x0, binning.x), (bounds.y0, binning.y)), 1):
        if (origin, size) != (0, 1):
            cards += [(f"LTM{axis}_{axis}", 1 / size, ""), (f"LTV{axis}", 0.5 - (origin + 0.5) / size, "")]
    if wcs is None:
        cards.append(("HISTORY", "the frames have no WCS in common, so there is none", ""))
    else:
        cards += [(keyword, value, "") for keyword, value in wcs.items()]
    return append_cards(text, cards)


def _other_section(amplifiers: Sequence[Amplifier], key: SectionKey) -> list[tuple[str, Any, str]]:
    """Return the card of a detector's place in the focal plane, if its amplifiers say it."""
    if key != "CCDSEC":
        return []
    places = []
    # a section that cannot be read places nothing, and no DETSEC is better than a wrong one
    for amplifier in amplifiers:
        try:
            places.append(placement(header_view(amplifier.image.header), "DETSEC", whole=_whole(amplifier.image)))
        except SectionError:
            return []
    targets = [place.target for place in places if place is not None]
    union = targets[0] if targets else Region(0, 0, 0, 0)
    for target in targets:
        union = union.union(target)
    own = amplifiers[0].place.step
    if len(targets) < len(places) or places[0] is None or union.size != sum(target.size for target in targets):
        return []
    step = YX(places[0].step.y * own.y, places[0].step.x * own.x)
    return [("DETSEC", Section(union, step).to_fits(), "")]


def _common_wcs(amplifiers: Sequence[Amplifier], bounds: Region, shape: tuple[int, int]) -> dict[str, Any] | None:
    """Return the cards of the WCS of what is put together; None if the frames do not have the same."""
    systems: list[dict[str, Any]] = []
    for amplifier in amplifiers:
        header = header_view(amplifier.image.header)
        if "CTYPE1" not in header:
            systems.append({})
            continue
        # amplifiers of a detector have one WCS with CRPIX counted from each one's own corner; moved there, they can be compared
        y, x = (amplifier.positions(i, bounds[2 * i], shape[i]) for i in (0, 1))
        moved = product_header(amplifier.image.header, y, x, "")
        systems.append({k: v for k, v in moved.items() if WCS_KEYWORD.match(k) and not k.startswith("LT")})
    # one amplifier that says something else is reason enough: a wrong WCS is worse than none
    first = systems[0]
    for other in systems[1:]:
        if other.keys() != first.keys() or not all(_is_close(key, first[key], other[key]) for key in first):
            return None
    return first


def _is_close(keyword: str, one: str | float, other: str | float) -> bool:
    """Return whether two values of a WCS card place pixels alike, to a hundredth of a pixel or a millionth."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=0.01 if keyword.startswith("CRPIX") else 1e-12)


@dataclass(frozen=True)
class Piece:
    """A part of an image and where it goes."""

    image: Image
    source: Region
    """The part, in pixels of the image."""

    place: Region
    """Where it goes, of the same shape."""

    step: tuple[int, int] = (1, 1)
    """1, or -1 for an axis that is flipped."""

    label: str = "frame"
    """How messages name the image."""


def paste(pieces: Sequence[Piece], shape: tuple[int, int]) -> Image:
    """Return the image that pieces make, in the units of the first; NaN and NO_DATA where there is none.

    It has a mask if an image has one or the pieces leave gaps, and a variance if an image has one. Places must not overlap.

    Raises
    ------
    UnitError
        Raised if units cannot be converted to those of the first.
    """
    first = pieces[0].image
    schema = first.schema
    for piece in pieces:  # by the names of planes: the bits of those that users added may differ between amplifiers
        schema = schema.merge(piece.image.schema) if piece.image.has_mask else schema
    gaps = sum(piece.place.size for piece in pieces) < shape[0] * shape[1]  # without any, a mask is memory for nothing
    dtype = np.result_type(*(piece.image.dtype for piece in pieces))
    dtypes = make_dtypes(
        data=dtype,
        variance=dtype if any(piece.image.has_variance for piece in pieces) else None,
        mask=schema.dtype if gaps or any(piece.image.has_mask for piece in pieces) else None,
    )
    parts = tuple(
        kernels.Part(
            piece.place,
            piece.step,
            conversion_factor(piece.image.units, first.units, piece.label),
            piece.image.schema.remap(schema) if piece.image.has_mask else (),
        )
        for piece in pieces
    )
    plan = Apply(
        shape,
        dtypes,
        kernel=kernels.paste,
        sources=tuple(Input(p.image.plan, Placed(p.place, p.source, p.step)) for p in pieces),
        params=make_params(
            parts=parts,
            dtypes=tuple((name, d.name) for name, d in dtypes),
            no_data=schema.bits("NO_DATA"),
        ),
    )
    return replace(
        first,
        plan=plan,
        grid=default_grid(shape),
        schema=schema,
        y=np.arange(shape[0]),
        x=np.arange(shape[1]),
        graphs=tuple(graph for piece in pieces for graph in piece.image.graphs),
    )


def below_each_other(images: Sequence[Image]) -> Image:
    """Return images one above the other in one, for numbers that hold for all of them together."""
    # a reduction has one step; the gaps beside narrower images are NO_DATA, which statistics leave out
    pieces, row = [], 0
    for image in images:
        ny, nx = image.shape
        pieces.append(Piece(image, Region.full(image.shape), Region(row, row + ny, 0, nx)))
        row += ny
    return paste(pieces, (row, max(image.shape[1] for image in images)))

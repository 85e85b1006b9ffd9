"""Turn a frame or a tree of frames into the HDUs of a FITS file, in the order of the file that it came from.

1. HDUs of the file come as the root's ``hdus`` lists them, those of frames that are gone left out; planes that a frame got
   since then follow its image (UNCERT, DQ), and frames that no file had come last, named by their place in the tree.
2. A frame's header is written without the cards that it inherits unchanged from the root's. If one of them is gone, the
   frame inherits nothing and has the others itself (INHERIT = F).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lazyccd.errors import ParameterError
from lazyccd.frame.core import CORRECTIONS, DATA, MASK, POWERS, UNCERTAINTY, Image
from lazyccd.frame.header import REMOVED, append_cards, cards_of, header_from_text, header_to_text
from lazyccd.frame.output_header import current_names, product_header, signed
from lazyccd.frame.units import unit_to_text
from lazyccd.io.fits.attribute_table import table_hdu
from lazyccd.io.fits.hdu_roles import BAD
from lazyccd.io.fits.layout import UNCERTAINTY_CLASSES, HduSpec, PlaneHdu, frame_hdus, mask_cards, pack_hdus
from lazyccd.io.fits.passthrough import KeptBytes
from lazyccd.kernels.block import MAPS

ORDER = (UNCERTAINTY, BAD, MASK, *MAPS)
"""Planes in the order in which they follow their image."""

OF_PLANES = re.compile(r"MP_|MSK[NMBD]\d{4}$")
"""Keywords by which a DQ extension names its bits: of LSST, and of this package."""


@dataclass
class FileLayout:
    """The HDUs of a file and where each frame's variables go."""

    hdus: list[HduSpec] = field(default_factory=list)
    planes: dict[str, list[PlaneHdu]] = field(default_factory=dict)
    """For each frame, the HDUs of its planes."""

    def add(self, spec: HduSpec, frame: str = "", plane: str = "") -> None:
        """Add an HDU."""
        if frame:
            self.planes.setdefault(frame, []).append(PlaneHdu(plane, len(self.hdus)))
        self.hdus.append(spec)


def file_layout(
    images: Mapping[str, Image],
    attrs: Mapping[Any, Any] | None = None,
    compress: str | None = None,
    steps: float = 0.0,
    dither: str = "NO_DITHER",
) -> FileLayout:
    """Return the layout of a file.

    Parameters
    ----------
    images
        The frames by name.
    attrs
        Attributes of the root of a tree. None for a single frame, whose image is the primary HDU: that is where
        ``CCDData.read`` and older programs look. The frames of a tree are extensions.
    compress, steps, dither
        As in `frame_hdus`.
    """
    if attrs is None:
        return _frame_layout(images[""], compress, steps, dither)
    return _tree_layout(images, attrs, compress, steps, dither)


def _frame_layout(image: Image, compress: str | None, steps: float, dither: str) -> FileLayout:
    """Return the layout of a file of one frame."""
    header = product_header(image.header, image.y, image.x, unit_to_text(image.units))
    hdus = _standard(image, signed(header_to_text(header)), compress=compress, steps=steps, dither=dither)
    names = [name for kind in image.kinds for name in ((BAD, MASK) if kind == MASK else (kind,))]
    squeezed = _squeezed(image)
    tables = [table_hdu(image.attrs[CORRECTIONS])] if CORRECTIONS in image.attrs else []
    return FileLayout(
        [*(replace(hdu, squeezed=squeezed) for hdu in hdus), *tables],
        {"": [PlaneHdu(name, number) for number, name in enumerate(names)]},
    )


def _squeezed(image: Image) -> tuple[int, ...]:
    """Return the numbers of the axes of length 1 that the image had in the file that it is from."""
    return tuple(image.attrs.get("squeezed", ()))


def _standard(image: Image, header: str, **packing: Any) -> tuple[HduSpec, ...]:
    """Return the HDUs of a single frame."""
    return frame_hdus(
        image.shape,
        header,
        dtype=image.dtype.name,
        uncertainty_type=image.uncertainty_type if image.has_variance else None,
        uncertainty_unit=unit_to_text(image.units ** POWERS[image.uncertainty_type]),
        schema=image.schema if image.has_mask else None,
        maps={name: (dtype.name, image.map_units(name)) for name, dtype in image.plan.planes if name in MAPS},
        **packing,
    )


def _tree_layout(
    images: Mapping[str, Image], attrs: Mapping[Any, Any], compress: str | None, steps: float, dither: str
) -> FileLayout:
    """Return the layout of a file of several frames."""
    root = current_names(str(attrs.get("header", "")))
    listed: Sequence[Mapping[str, Any]] = attrs.get("hdus", ())
    given: dict[str, dict[str, str]] = {name: {} for name in images}
    for hdu in listed:
        if hdu.get("frame") in images and hdu["plane"] != DATA:
            given[hdu["frame"]][hdu["plane"]] = str(hdu["header"])
    frames = {name: _Frame(name, image, root, given[name]) for name, image in images.items()}
    _tell_apart(list(frames.values()), {hdu["frame"] for hdu in listed if "frame" in hdu})
    versions = _Versions(listed, frames.values())
    layout = FileLayout()
    # The first HDU cannot be an extension: if the frame that was primary is gone, an empty one takes its place.
    if not listed or not _is_primary(listed[0], images):
        layout.add(HduSpec("", root, ()))
    for hdu in listed:
        if hdu.get("root"):
            layout.add(HduSpec("", root, ()))
        elif "bytes" in hdu:
            layout.add(HduSpec(str(hdu.get("name", "")), "", (), kept=KeptBytes.of(hdu["bytes"])))
        elif hdu.get("frame") in frames:
            frames[hdu["frame"]].write(layout, hdu["plane"], versions)
    for frame in frames.values():
        if frame.name not in layout.planes:
            frame.write(layout, DATA, versions)
    if layout.hdus[0].kept is None:
        layout.hdus[0] = replace(layout.hdus[0], header=signed(layout.hdus[0].header))
    noisy = [number for planes in layout.planes.values() for plane, number in planes if plane in {DATA, UNCERTAINTY}]
    layout.hdus = list(pack_hdus(layout.hdus, noisy, root, compress, steps, dither))
    return layout


def _is_primary(hdu: Mapping[str, Any], images: Mapping[str, Image]) -> bool:
    """Return whether an HDU that is listed first will be there."""
    return bool(hdu.get("root")) or "bytes" in hdu or hdu.get("frame") in images


def _tell_apart(frames: Sequence[_Frame], from_file: set[str]) -> None:
    """Name frames by their place in the tree if they come from no file or share the name of another."""
    taken: dict[tuple[str, int], str] = {}
    for number, frame in enumerate(frames, 1):
        frame.number = number
        key = _key(frame.header)
        if frame.name not in from_file and (not key[0] or key in taken):
            # FITS strings are ASCII (section 4.2.1).
            if not frame.name.isascii():
                raise ParameterError(
                    f"frame name {frame.name!r} cannot be an EXTNAME, which holds ASCII only; rename the child of the tree."
                )
            frame.cards += [("EXTNAME", frame.name.replace("/", "_"), "name of the frame"), ("EXTVER", REMOVED, "")]
        taken.setdefault(key, frame.name)


def _key(header: Mapping[str, Any]) -> tuple[str, int]:
    """Return the name and version that identify an extension."""
    return str(header.get("EXTNAME", "")).strip().upper(), int(header.get("EXTVER", 1))


class _Versions:
    """Finds EXTVER for new planes, so that no two extensions share name and version."""

    def __init__(self, listed: Sequence[Mapping[str, Any]], frames: Collection[_Frame]) -> None:
        kept = ({"EXTNAME": hdu.get("name", ""), "EXTVER": hdu.get("version", 1)} for hdu in listed if "bytes" in hdu)
        given = (header_from_text(text) for frame in frames for text in frame.given.values())
        self._taken = {_key(header) for header in (*kept, *given, *(frame.header for frame in frames))}
        self._of_no_frame = 1 + max((frame.version for frame in frames), default=0)

    def tell_apart(self, spec: HduSpec, version: int) -> HduSpec:
        """Return the HDU of a new plane with the number of its frame, or one of no frame: then it is of the one before it."""
        if not spec.name:
            return spec
        # The standard recommends that EXTNAME, EXTVER and EXTLEVEL tell all HDUs apart (section 4.4.2.6).
        while (spec.name, version) in self._taken:
            version = max(version + 1, self._of_no_frame)
        self._taken.add((spec.name, version))
        return replace(spec, header=append_cards(spec.header, [("EXTVER", version, "")]))


class _Frame:
    """A frame of a tree, and the HDUs that it becomes."""

    def __init__(self, name: str, image: Image, root: str, given: Mapping[str, str]) -> None:
        self.name = name
        self.image = image
        self.root = root
        self.given = given
        """Headers that its planes had in a file, by plane."""
        self.text = header_to_text(product_header(image.header, image.y, image.x, unit_to_text(image.units)))
        self.header = header_from_text(self.text)
        self.cards: list[tuple[str, Any, str]] = []
        self.number = 1
        self.squeezed = _squeezed(image)

    @property
    def version(self) -> int:
        """EXTVER, of planes that are new too."""
        return int(self.header.get("EXTVER", self.number))

    def write(self, layout: FileLayout, plane: str, versions: _Versions) -> None:
        """Add the HDU of a plane; behind the image, all planes that had none in the file."""
        planes: Sequence[str] = (plane,)
        if plane == DATA:
            layout.add(self._data(), self.name, DATA)
            # MASK in 0 and 1 is for CCDData.read, which reads single frames; a tree has DQ alone.
            planes = [other for other in ORDER if other not in self.given and other != BAD]
        for other in planes:
            for role, spec in self._plane(other):
                layout.add(versions.tell_apart(spec, self.version), self.name, role)

    def _data(self) -> HduSpec:
        inherited = str(self.image.attrs.get("inherited", "")).replace("RADECSYS", "RADESYS")  # as in `current_names`
        own, inherit = own_header(self.text, inherited, self.root)
        text = append_cards(own, self.cards)
        return HduSpec("", text, self.image.shape, self.image.dtype.name, squeezed=self.squeezed, inherit=inherit)

    def _plane(self, plane: str) -> Iterator[tuple[str, HduSpec]]:
        """Yield the HDUs of a plane: none if the frame does not have it."""
        image = self.image
        specs = {spec.name.lower(): spec for spec in _standard(image, "")}
        if plane == UNCERTAINTY and image.has_variance:
            cards = [("UTYPE", UNCERTAINTY_CLASSES[image.uncertainty_type], "class of the uncertainty in CCDData")]
            yield plane, self._like(plane, specs["uncert"], cards)
        elif plane == BAD and image.has_mask:
            yield plane, self._like(plane, specs["mask"], [])
        elif plane == MASK and image.has_mask:
            named = header_from_text(self.given.get(plane, "")).get("EXTNAME", "DQ")
            if str(named).strip().upper() == "DQ":
                cards = [(c.keyword, c.value, c.comment) for c in header_from_text(mask_cards(image.schema)).cards]
                yield plane, self._like(plane, specs["dq"], cards)
            else:  # MASK and BPM are 0 or 1, and the planes have a DQ beside them
                yield BAD, self._like(plane, specs["mask"], [])
                yield plane, self._new(specs["dq"])
        elif plane in MAPS and plane in image.plan.dtypes:
            yield plane, self._like(plane, specs[plane], [])

    def _like(self, plane: str, spec: HduSpec, cards: Sequence[tuple[str, Any, str]]) -> HduSpec:
        """Return the HDU of a plane with the header that it had in the file, true for what it holds now."""
        text = self.given.get(plane)
        if text is None:
            return self._new(spec)
        units = str(header_from_text(spec.header).get("BUNIT", ""))
        # The header of the plane is kept, with sections and WCS made true for the pixels that are left.
        header = product_header(text, self.image.y, self.image.x, units)
        # Cards of the file name the bits that it had (MP_SAT = 0); a reader that goes by them would take ours for those.
        for key in [key for key in header if OF_PLANES.match(key)]:
            del header[key]
        inherit = header.get("INHERIT")
        return HduSpec(
            "",
            append_cards(header_to_text(header), cards),
            spec.shape,
            spec.dtype,
            squeezed=self.squeezed,
            inherit=inherit if isinstance(inherit, bool) else None,
        )

    def _new(self, spec: HduSpec) -> HduSpec:
        """Return the HDU of a plane that no file had."""
        return replace(spec, squeezed=self.squeezed)


def own_header(text: str, inherited: str, root: str) -> tuple[str, bool | None]:
    r"""Return a frame's header without what it inherits unchanged, and whether the extension then says that it inherits.

    Parameters
    ----------
    text
        The header with inherited cards.
    inherited
        Keywords that were inherited when the file was opened.
    root
        Header of the root.

    Examples
    --------
    >>> root = "FILTER  = 'r'\nAIRMASS = 1.1"
    >>> own_header("GAIN    = 2.0\nFILTER  = 'r'\nAIRMASS = 1.2", "FILTER AIRMASS", root)
    ('GAIN    = 2.0\nAIRMASS = 1.2', None)
    >>> own_header("GAIN    = 2.0\nFILTER  = 'r'", "FILTER AIRMASS", root)  # AIRMASS was taken out
    ("GAIN    = 2.0\nFILTER  = 'r'", False)
    """
    keywords = set(inherited.split())
    stated = re.search(r"^INHERIT = +([TF])", text, re.MULTILINE)
    inherit = None if stated is None else stated[1] == "T"
    if not keywords:
        return text, inherit
    # HIERARCH keywords have blanks, and `inherited` is a list divided by blanks.
    shared = [(keyword.replace(" ", "_"), lines) for keyword, lines in cards_of(root)]
    cards = [(keyword.replace(" ", "_"), lines) for keyword, lines in cards_of(text)]
    # With INHERIT = T a reader would find the removed card again, in the primary.
    if keywords & {keyword for keyword, _ in shared} - {keyword for keyword, _ in cards}:
        return text, False
    kept = [lines for keyword, lines in cards if keyword not in keywords or (keyword, lines) not in shared]
    return "\n".join(line for lines in kept for line in lines), inherit

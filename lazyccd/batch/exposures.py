"""Join what belongs to one exposure: images of a file are calibrated one by one, and together they are one product.

1. Frames of a file, and masters of frames of the same files, become a tree like it, in its order.
2. Amplifiers of one detector are put together: images whose CCDSEC lie beside each other, or that have DETSEC alone, and whose
   headers name the same detector, if they name any. Images with overlapping CCDSEC are detectors of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from lazyccd import io, ops
from lazyccd.batch.night_plan import Doubt, FramePlan, MasterGroup, exposure_name
from lazyccd.errors import LazyCCDError
from lazyccd.frame.core import DATA
from lazyccd.frame.header import cards_of, header_view
from lazyccd.frame.stack_header import stack_header
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.io.fits.mef import root_attributes
from lazyccd.io.fits.open import image_of
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.names import parse_name, split_hdu
from lazyccd.ops.mosaic.assemble import SectionKey, detectors_like, places_of
from lazyccd.ops.mosaic.split import tap_image
from lazyccd.sections import Region

DETECTORS = ("CCDNAME", "CCDNUM", "CHIPID")
"""Keywords that name the detector of an amplifier, the first that all images have."""


def exposures(frame_plans: Iterable[FramePlan]) -> dict[str, list[FramePlan]]:
    """Return the frame plans that become one product each, by the name of the exposure."""
    found: dict[str, list[FramePlan]] = {}
    for frame_plan in frame_plans:
        found.setdefault(exposure_name(frame_plan), []).append(frame_plan)
    return found


def least_complete(frame_plans: Sequence[FramePlan]) -> FramePlan:
    """Return the frame whose status is that of a product of several: the first that is not complete, else the first."""
    return next((frame_plan for frame_plan in frame_plans if frame_plan.status != "COMPLETE"), frame_plans[0])


def master_files(groups: Iterable[MasterGroup]) -> dict[str, list[MasterGroup]]:
    """Return the groups of masters that are written into one file, by the name of the file."""
    found: dict[str, list[MasterGroup]] = {}
    for group in groups:
        found.setdefault(group.file, []).append(group)
    return found


def open_raw(frame_plan: FramePlan) -> xr.Dataset:
    """Open the raw image of a frame lazily, even if other images of its file are damaged."""
    name = parse_name(frame_plan.source)
    # A damaged extension must not keep the others of its file from being read.
    file = scan_fits(name.path, keep_going=True)
    image = image_of(file, name.hdu, "auto", None, frame_plan.facts.unit.value or None)
    if frame_plan.tap is not None:
        image = tap_image(image, frame_plan.child, frame_plan.tap)
    return image.to_dataset()


def as_exposure(frame_plans: Sequence[FramePlan], frames: Sequence[xr.Dataset]) -> xr.Dataset | xr.DataTree:
    """Return the frames of one file as what is written: a tree with the file's order and tables, or its only image.

    Parameters
    ----------
    frame_plans, frames
        Plan and calibrated frame of each image of the file.
    """
    if not frame_plans[0].child:
        return frames[0]
    named = {frame_plan.child: frame for frame_plan, frame in zip(frame_plans, frames, strict=True)}
    if frame_plans[0].tap is not None:
        return make_tree(named, {})
    return _tree_like(named, root_attributes(_path(frame_plans[0]), named))


def as_masters(members: Sequence[Sequence[FramePlan]], frames: Sequence[xr.Dataset]) -> xr.Dataset | xr.DataTree:
    """Return the masters of one file as what is written: a tree whose primary header is that of a stack, or the only master.

    Parameters
    ----------
    members
        For each master, the plans of the frames that it is made of.
    frames
        The masters.
    """
    if not members[0][0].child:
        return frames[0]
    children = [frame_plans[0].child for frame_plans in members]
    if members[0][0].tap is not None:
        return make_tree(dict(zip(children, frames, strict=True)), {})
    # a file that lacks an image still gives the others
    files = {split_hdu(frame_plan.name)[0]: _path(frame_plan) for some in members for frame_plan in some}
    texts = [scan_fits(path, keep_going=True).hdus[0].header for path in files.values()]
    names = list(files)
    header = stack_header(texts, names, [1.0] * len(texts), method="average").apply(texts[0])
    return _tree_like(dict(zip(children, frames, strict=True)), {"header": header})


def _path(frame_plan: FramePlan) -> str:
    return split_hdu(frame_plan.source)[0]


def _tree_like(frames: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any]) -> xr.DataTree:
    """Return frames, whose headers have the primary's cards, as a tree in which they inherit these."""
    shared = dict(cards_of(str(attrs["header"])))
    parts = {}
    for name, frame in frames.items():
        same = [key for key, lines in cards_of(str(frame.attrs["header"])) if shared.get(key) == lines]
        parts[name] = frame.assign_attrs(inherited=" ".join(key.replace(" ", "_") for key in same))
    return make_tree(parts, attrs)


def assemble_amplifiers(
    exposure: xr.Dataset | xr.DataTree, section: SectionKey | None = None, group: str | None = None
) -> tuple[xr.Dataset | xr.DataTree, list[str]]:
    """Put the amplifiers of an exposure together into detectors, where its headers say how.

    Parameters
    ----------
    exposure
        A frame, which is returned as it is, or a tree.
    section, group
        As in `lazyccd.assemble`; if None, as the headers say.

    Returns
    -------
    tuple
        The frame of the detector, or a tree of detectors, and messages for the report. Where headers do not say how amplifiers
        lie, the tree stays as it is, and a message says why.
    """
    if not isinstance(exposure, xr.DataTree):
        return exposure, []
    frames = frames_of(exposure)
    headers = {name: header_view(str(frame.attrs["header"])) for name, frame in frames.items()}
    # A keyword that one image lacks cannot sort them.
    key = group or next((key for key in DETECTORS if all(key in header for header in headers.values())), None)
    detectors: dict[str, list[str]] = {}
    for name, header in headers.items():
        detectors.setdefault(str(header.get(key)) if key else "", []).append(name)
    # Each image is a detector already; a mosaic is never pasted, since its gaps are not pixels.
    if len(detectors) == len(frames):
        return exposure, []
    try:
        why = next(filter(None, (_why_apart({n: frames[n] for n in names}) for names in detectors.values())), "")
        made = None if why else ops.assemble(exposure, section, group=key)
    # Images that do not fit together are still good products, each by itself.
    except LazyCCDError as error:
        made, why = None, str(error).rstrip(".")
    if made is None:
        return exposure, [f"{len(frames)} images are left apart: {why}"]
    # One detector is still a file of its kind: its tables and primary header stay, if its amplifiers were images of a file.
    if isinstance(made, xr.Dataset) and "header" in exposure.attrs:
        made = detectors_like(exposure, {"SCI": (made, list(frames))})
    said = f"{len(frames)} images are put together into {len(frames_by_name(made))}"
    empty = max(_uncovered({name: frames[name] for name in names}) for names in detectors.values())
    if empty > 0.0005:
        said += f", of whose pixels {empty:.1%} lie in none of them: was more trimmed than their CCDSEC leaves out?"
    return made, [said]


def _uncovered(frames: Mapping[str, xr.Dataset]) -> float:
    """Return for how much of the section that the amplifiers of a detector span none of them has pixels."""
    _, _, places = places_of(make_tree(frames, {}))
    whole, covered = Region(0, 0, 0, 0), 0
    for name, place in places.items():
        whole = place.target.union(whole)
        # What was trimmed of an amplifier leaves its section empty there; an overscan that was not is no part of it.
        pixels = frames[name].sizes["y"] * frames[name].sizes["x"] * place.binning.y * place.binning.x
        covered += min(pixels, place.target.size)
    return 1.0 - covered / whole.size if whole.size else 0.0


def _why_apart(frames: Mapping[str, xr.Dataset]) -> str:
    """Say why frames are not amplifiers of one detector; empty if they are."""
    if len(frames) == 1:
        return ""
    key, _, places = places_of(make_tree(frames, {}))
    lost = [name for name in frames if name not in places]
    if lost:
        return f"no CCDSEC or DETSEC says where {', '.join(lost)} lies"
    # Overlapping CCDSEC count from each detector's own corner: DETSEC places detectors of a mosaic, with gaps between
    # them.
    if key == "DETSEC" and any("CCDSEC" in header_view(str(frame.attrs["header"])) for frame in frames.values()):
        return "their CCDSEC overlap, so each is a detector of its own"
    return ""


def merge_messages(words: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Merge the messages about the images of an exposure: each text once, after the names of its images if it is not about all.

    Examples
    --------
    >>> merge_messages({"SCI_1": ["trimmed", "12 cosmic rays"], "SCI_2": ["trimmed"]})
    ('trimmed', 'SCI_1: 12 cosmic rays')
    """
    found: dict[str, list[str]] = {}
    for name, texts in words.items():
        for text in texts:
            found.setdefault(text, []).append(name)
    return tuple(text if len(names) == len(words) else f"{', '.join(names)}: {text}" for text, names in found.items())


def merge_doubts(doubts: Mapping[str, Iterable[Doubt]]) -> tuple[Doubt, ...]:
    """Merge the doubts about the images of an exposure, as `merge_messages` does with texts."""
    found: dict[Doubt, list[str]] = {}
    for name, some in doubts.items():
        for doubt in some:
            found.setdefault(doubt, []).append(name)
    return tuple(
        doubt if len(names) == len(doubts) else replace(doubt, text=f"{', '.join(names)}: {doubt.text}")
        for doubt, names in found.items()
    )


def frames_by_name(exposure: xr.Dataset | xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the frames of an exposure by name; the name of a single image is empty."""
    return frames_of(exposure) if isinstance(exposure, xr.DataTree) else {"": exposure}


def with_frames(exposure: xr.Dataset | xr.DataTree, frames: Mapping[str, xr.Dataset]) -> xr.Dataset | xr.DataTree:
    """Return an exposure with other frames under its names, as `frames_by_name` returns them."""
    return make_tree(dict(frames), exposure.attrs) if isinstance(exposure, xr.DataTree) else frames[""]


def with_planes(frame: xr.Dataset, planes: Sequence[str]) -> xr.Dataset:
    """Return a frame without its uncertainty or mask, unless they are among the planes that are asked for."""
    if "uncertainty" not in planes:
        frame = ops.with_uncertainty(frame, None)
    return frame if "mask" in planes else ops.with_mask(frame, None)


def master_locations(path: str, groups: Sequence[MasterGroup]) -> dict[str, str]:
    """Return the name by which `open_fits` opens each master of a file, by the name of its group."""
    if not groups[0].exposure:
        return {groups[0].name: path}
    # Masters have masks and uncertainties between them, so their numbers are not 1, 2, 3.
    listed = io.open_mef(path).attrs["hdus"]
    numbers = [number for number, hdu in enumerate(listed) if hdu.get("plane") == DATA]
    return {group.name: f"{path}[{number}]" for group, number in zip(groups, numbers, strict=True)}

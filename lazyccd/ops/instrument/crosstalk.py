"""Subtract what amplifiers or detectors that are read together leave in each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import xarray as xr

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError, UnitError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.history_log import LogEntry, apply_to_text, log_entries
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.kernels import instrument
from lazyccd.ops.arguments import normalize_number
from lazyccd.ops.instrument.signature import check_counts
from lazyccd.plan.footprints import PlaneMap
from lazyccd.plan.steps import Input

Corner: TypeAlias = Literal["LL", "LR", "UL", "UR"]
CORNERS: tuple[Corner, ...] = ("LL", "LR", "UL", "UR")

UNKNOWN = ("BAD", "NO_DATA")
"""Planes whose pixels are no source: what they have is not what the amplifier read. Saturated ones and cosmic rays are."""

OF_SOURCES: PlaneMap = (("data", ("data", "mask")), ("variance", ("data", "variance", "mask")))
BRIGHT: PlaneMap = (*OF_SOURCES, ("mask", ("data", "mask")))
"""A bright source is noted in the mask."""


def correct_crosstalk(
    frames: xr.DataTree | Mapping[str, xr.Dataset],
    coefficients: Mapping[str, Mapping[str, float]],
    corners: Mapping[str, Corner] | None = None,
    mask_above: float | None = None,
    *,
    add_keyword: LogEntry = True,
) -> Any:
    r"""Subtract from each amplifier or detector what the others leave in it while they are read at the same time.

    Parameters
    ----------
    frames
        A tree, or frames by name, in adu (or DN, counts) without bias, all of one shape.
    coefficients
        For each frame that suffers, by name, the fraction of each other one that is in it:
        ``coefficients["A"]["B"]`` of B is in A.
    corners
        For each frame the corner that is read first, ``"LL"``, ``"LR"``, ``"UL"`` or ``"UR"`` (lower left is pixel (0, 0)):
        pixels affect each other that are read at the same time. Left out, or for frames not named, ``"LL"``: frames as they
        were read.
    mask_above
        Pixels get the plane ``CROSSTALK``, which does not count as bad, where a source is at or above it.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.DataTree or dict of xr.Dataset
        As given. Lazy, one task per chunk, halo 0: :math:`d_i - \sum_j c_{ij} d_j`, variances with the squares of the
        fractions. Source pixels that are ``BAD`` or ``NO_DATA`` or not finite leave nothing, in data, variance and mask:
        their values are not what the amplifier read. Saturated pixels and cosmic rays are, and are subtracted.

    Raises
    ------
    UnitError
        Raised if a frame is not in counts, or they have different units.
    ParameterError
        Raised if gain, dark or flat were applied already, a name is unknown or stands for itself, or a corner is none.
    ShapeError
        Raised if the frames have different shapes.

    References
    ----------
    LSST Science Pipelines, ip_isr, crosstalk.py (``subtractCrosstalk``, amplifiers flipped to the same readout corner, its
    ``badPixels`` left out of the sources); one pass, as there and in BANZAI.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> both = {
    ...     name: from_ccddata(CCDData(np.array([values]), unit="adu", meta={"SUBBIAS": "done"}))
    ...     for name, values in {"A": [10.0, 20.0], "B": [1000.0, 0.0]}.items()
    ... }
    >>> out = correct_crosstalk(both, {"A": {"B": 0.002}}, corners={"B": "LR"})
    >>> out["A"]["data"].values, out["B"]["data"].values
    (array([[10., 18.]]), array([[1000.,    0.]]))
    """
    # no `operation`, which takes a tree frame by frame: here every frame needs the others
    tree = isinstance(frames, xr.DataTree)
    given: dict[str, xr.Dataset] = frames_of(frames) if isinstance(frames, xr.DataTree) else dict(frames)
    images = {name: resolve(ds, f"frame {name!r}") for name, ds in given.items()}
    _check_amplifiers(images, coefficients, corners or {})
    entries = log_entries("correct_crosstalk", {"coefficients": coefficients, "mask_above": mask_above}, add_keyword)
    done = {}
    for name, image in images.items():
        check_counts(image, "correct_crosstalk")
        # a source whose fraction is 0 is not even read
        fractions = {source: float(c) for source, c in coefficients.get(name, {}).items() if c != 0}
        if not fractions:
            done[name] = given[name]
            continue
        # sources as they were read, not as corrected: one pass, as in LSST's pipelines and BANZAI
        flipped = {source: _as_read(images[source], corners or {}, source, name) for source in fractions}
        result = _without_crosstalk(image, flipped, tuple(fractions.values()), mask_above).to_dataset()
        done[name] = result.assign_attrs(header=apply_to_text(str(result.attrs.get("header", "")), entries))
    return make_tree(done, cast("xr.DataTree", frames).attrs) if tree else done


def _check_amplifiers(images: Mapping[str, Image], coefficients: object, corners: Mapping[str, Any]) -> None:
    """Refuse frames that do not go together, and names that are none of theirs."""
    if not isinstance(coefficients, Mapping) or not all(isinstance(row, Mapping) for row in coefficients.values()):
        raise ArgumentTypeError(
            "coefficients must give for each frame, by name, the fractions of others, by name: {'A': {'B': 1e-4}}."
        )
    named = {*coefficients, *corners, *(source for row in coefficients.values() for source in row)}
    unknown = sorted(named - images.keys())
    if unknown:
        raise ParameterError(f"there is no frame {', '.join(map(repr, unknown))}: the frames are {list(images)}.")
    own = [name for name, row in coefficients.items() if name in row and row[name] != 0]
    if own:
        raise ParameterError(f"frame {own[0]!r} cannot be its own source; leave it out of its coefficients.")
    wrong = [corner for corner in corners.values() if corner not in CORNERS]
    if wrong:
        raise ParameterError(f"corner {wrong[0]!r} must be one of {', '.join(CORNERS)}.")
    for what, values in (
        ("shapes", {n: i.shape for n, i in images.items()}),
        ("units", {n: i.units for n, i in images.items()}),
    ):
        if len(set(values.values())) > 1:
            error = ShapeError if what == "shapes" else UnitError
            raise error(f"the frames have the {what} {values} and must have the same.")


def _as_read(image: Image, corners: Mapping[str, Corner], name: str, victim: str) -> Image:
    """Return a source whose pixels lie where those of the victim lie that are read at the same time."""
    # crosstalk couples pixels that are read at the same moment, which is the same distance from each one's own corner
    one, other = corners.get(name, "LL"), corners.get(victim, "LL")
    flips = tuple(one[k] != other[k] for k in (0, 1))
    if flips == (False, False):
        return image
    offset = tuple(length - 1 if flip else 0 for length, flip in zip(image.shape, flips, strict=True))
    step = tuple(-1 if flip else 1 for flip in flips)
    return image.window((offset[0], offset[1]), (step[0], step[1]), image.shape)


def _without_crosstalk(
    image: Image, sources: Mapping[str, Image], fractions: tuple[float, ...], mask_above: float | None
) -> Image:
    """Return an image less fractions of others."""
    schema = image.schema
    if mask_above is not None:
        schema = schema.with_plane("CROSSTALK", "A bright source was corrected for here", bad=False)
    planes: dict[str, Any] = dict(image.plan.planes)
    if any(source.has_variance for source in sources.values()):
        planes["variance"] = image.dtype
    if mask_above is not None or image.has_mask:
        planes["mask"] = schema.dtype
    uses = BRIGHT if mask_above is not None else OF_SOURCES
    plan = image.apply(
        instrument.remove_crosstalk,
        (Input(image.plan), *(Input(source.plan, uses=uses) for source in sources.values())),
        planes,
        coefficients=fractions,
        unknown=image.schema.bits(*UNKNOWN),
        above=np.inf if mask_above is None else normalize_number(mask_above, "mask_above"),
        bit=0 if mask_above is None else schema.bits("CROSSTALK"),
        dtype=image.dtype.name,
        mask_dtype=schema.dtype.name,
    )
    graphs = tuple(graph for source in sources.values() for graph in source.graphs)
    return replace(image, plan=plan, schema=schema, graphs=(*image.graphs, *graphs))

"""`coadd`: many exposures on one grid of the sky, combined in one lazy graph.

Each frame is resampled as `lazyccd.ops.mosaic.warp` does it, and `lazyccd.ops.stack` does the rest: a mosaic is a stack whose
inputs are warps. Where each frame lies is found once, from its WCS; a chunk of the mosaic reads the frames that lie on it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.errors import ParameterError, warn
from lazyccd.frame.core import Image
from lazyccd.frame.header import NewCard, header_view
from lazyccd.frame.stack_header import StackHeader
from lazyccd.frame.tree import frames_of
from lazyccd.io.names import expand_names, name_with_hdu
from lazyccd.io.open import open_image
from lazyccd.kernels.block import APERTURE
from lazyccd.kernels.pointwise import edge_weights
from lazyccd.kernels.resample.apertures import noise_factor
from lazyccd.kernels.resample.weights import spread_of
from lazyccd.kernels.stack.scaling import Levels
from lazyccd.kernels.stack.types import Rejecting
from lazyccd.ops.mosaic.agreement import flux_agreement
from lazyccd.ops.mosaic.blot import Blotted, without_outliers
from lazyccd.ops.mosaic.empty import tell_empty
from lazyccd.ops.mosaic.grid import bounded, find_optimal_grid
from lazyccd.ops.mosaic.hot_pixels import can_find_hot_pixels, hot_pixels_left_out
from lazyccd.ops.mosaic.matching import Match
from lazyccd.ops.mosaic.placed import Placed, on_grid
from lazyccd.ops.mosaic.reference import skies_of
from lazyccd.ops.mosaic.sky import Sky, without_sky
from lazyccd.ops.mosaic.warp import (
    Order,
    SkyGrid,
    celestial_target,
    celestial_wcs,
    kernel_of,
    normalize_shape,
    pixfrac_of,
)
from lazyccd.ops.stack.combine import (
    StackPlan,
    check_result_dtype,
    header_of,
    plain_rule,
    uncertainty_name,
)
from lazyccd.ops.stack.inputs import Given, collect, in_one_unit
from lazyccd.ops.stack.rejection import RULES, Clipped, Rejection, SigmaClip, rule_of
from lazyccd.ops.stack.scaling import STATISTICS, Spec, levels_of
from lazyccd.plan.chunks import grid_boxes
from lazyccd.plan.lower import read_label
from lazyccd.plan.steps import Apply, Input, Scalar, Stack, make_dtypes, make_params

FILTERS = ("FILTER", "FILTER1", "FILTER2", "FILTER3", "FILTERS", "FILTNAM1", "INSFLNAM")
"""Keywords of the filter."""

COUNTING = ("minmax", "pclip", "avsigclip")
"""Rules that count frames that lie elsewhere, or look along lines of the image."""


AUTO = "auto"
"""The default of ``reject``: hot pixels are left out of the frames, then `Clipped`."""


class RepeatedFrameWarning(UserWarning):
    """The same frame is in a mosaic more than once."""


class StarCoreWarning(UserWarning):
    """A rejection that cuts the middle of stars where the seeing varies."""


def coadd(
    frames: Any,
    wcs: Any = None,
    shape: tuple[int, int] | None = None,
    method: Literal["average", "median", "sum"] = "average",
    *,
    order: Order = "lanczos3",
    pixfrac: float = 1.0,
    reject: Rejection | Blotted | str | None = "auto",
    weights: Any = None,
    flux_scale: Spec = None,
    sky: Sky | None = None,
    sky_box: int | tuple[int, int] = 128,
    match: Match | None = None,
    nkeep: int = 1,
    min_coverage: int = 1,
    feather: float = 0.0,
    uncertainty: Literal["propagated", "scatter"] | None = None,
    maps: Sequence[str] = (),
    rejections: bool = False,
    dtype: npt.DTypeLike | None = None,
    unit: Any = None,
) -> xr.Dataset:
    """Resample frames onto one grid of the sky, and combine them.

    Parameters
    ----------
    frames
        Frames with celestial WCS, trees of such, CCDData, paths of files and stores, globs and ``@lists``, in any mixture. Each
        image of a file of several is a frame of its own.
    wcs
        The WCS of the mosaic: an `astropy.wcs.WCS`, or any other celestial one. None takes that of `find_optimal_grid`.
    shape
        Rows and columns; None takes what holds all frames, and the reference pixel moves along.
    method
        ``average``, ``median`` or ``sum``.
    order, pixfrac
        The interpolation kernel, as in `wcs_project`.
    reject
        The rule by which inputs are rejected, or its name; see `lazyccd.rejection`. None rejects nothing. The default, ``"auto"``,
        first leaves hot pixels out of the frames, where at least 5 lie on one another, and then is
        `~lazyccd.rejection.Clipped`, or ``"clipped"``, which leaves pixels of fewer than 4 frames alone, and judges what is above the sky
        of each frame, the median of 100 000 of its pixels. What the kernel may have spread of a strong outlier by more than the limit is
        rejected with it, except in sources. See Notes for hot pixels. `~lazyccd.rejection.Blotted` compares each frame with the
        median of all on its own pixels.
    weights
        For averages and sums, as in `combine`. Those of pixels are resampled, linearly.
    flux_scale
        Factors that bring all frames to one photometric scale: one per frame; a keyword of the headers, such as ``"FLXSCALE"``;
        or ``"exposure"``, which divides by the exposure times, relative to the first frame. ``"overlaps"`` measures them from the
        stars that frames have in common; the geometric mean of the factors is then 1.
    sky, sky_box
        ``"mesh"`` or ``"constant"`` subtracts the sky of each frame first, from the levels of boxes; see `subtract_sky`.
    match
        ``"constant"`` or ``"plane"`` finds, from the overlaps alone, what has to be subtracted from each frame so that they
        agree; the sum over connected frames is zero. `mosaic_corrections` returns it as a table.
    nkeep
        How many inputs are left at least; see `combine`.
    min_coverage
        Pixels of which fewer inputs are used become NaN and ``NO_DATA``.
    feather
        Pixels of a frame over which its weight falls to 0 towards its edges; 0 for none. Medians have no weights.
    uncertainty
        ``"propagated"`` from those of the frames, the default if all have one; or ``"scatter"``, from the sample variance of
        the inputs that are left.
    maps
        Variables to add, as in `combine`: ``"n_used"``, ``"n_rejected"``, ``"exposure"``; ``"coverage"``, the
        number of frames that have data there, used or not; and ``"variance_aperture"``, see Notes.
    rejections
        Add the variable ``rejected`` (frame, y, x): which inputs were rejected.
    dtype
        The dtype of the result, float32 or float64; by default that of the frames.
    unit
        For files, as in `open_fits`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per square chunk, which reads the frames that lie on it, and of each what lies under it. Units are those of
        the first frame. The data are those of a pixel of the mosaic: surface brightness times the area of that pixel in pixels of
        the frame. Where no frame has a pixel the data
        are NaN and the mask is ``NO_DATA``. The header is that of a stack (see `combine`), with the WCS of the mosaic.

    Raises
    ------
    ParameterError
        Raised if there is no frame, no frame lies on the grid, all frames are in memory and none has a good pixel, filters differ, or
        an argument has a value that is not described above. With ``match`` or a rejection, tasks raise it if stars of a frame are
        surely more than 20 % brighter or fainter than in others, after the scale that it states.
    FrameError
        Raised if a frame has no celestial WCS.
    ArgumentTypeError
        Raised if an input is not a frame, or ``wcs`` is not a celestial WCS.
    UnitError
        Raised if units cannot be converted to those of the first frame.

    Warns
    -----
    OffGridWarning
        Frames that do not lie on the grid are left out.
    EmptyFrameWarning
        All pixels of a frame are NaN or masked, or have no weight. The call warns of frames and weights that are in memory. For other
        frames, the tasks do that measure the sky for a rejection, from up to 100 000 pixels, or the variance for
        ``weights="variance"``.
    GridWarning
        Frames lie far apart, or their pixels differ by more than a factor of 20; see `find_optimal_grid`.
    RepeatedFrameWarning
        A frame is given more than once.
    StarCoreWarning
        `~lazyccd.rejection.SigmaClip` cuts the middle of stars where the seeing varies.

    See Also
    --------
    lazyccd.aperture_factor
    lazyccd.find_optimal_grid
    lazyccd.wcs_project

    Notes
    -----
    Neighbours share pixels of the frames, so a sum of their variances is too small for a sum over an aperture. Sums of
    ``variance_aperture`` are right for large apertures, at any scale of the mosaic; for small ones multiply them by `aperture_factor`.

    For ``match`` and scales from overlaps each frame is read once more, to means on about 24 x 24 cells. With a rejection, up to
    about a million pixels of each frame are, for stars that tell its scale.

    A hot pixel for ``"auto"`` is 5 standard deviations brighter than 4 times its third brightest neighbour, as no star of 1.5 pixels FWHM
    or more is, and than 4 times what a fifth of the frames have at its place at most. Such pixels have no weight, and so lack in ``coverage`` and not in
    ``n_rejected``. Frames that drift by 0.2 pixels each must be 9 at least, or else move by more than a pixel to both sides. The frames
    are read once more for it, and resampled by the bilinear kernel: a third of the processor time more.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astropy.wcs import WCS
    >>> def frame(column, value):
    ...     wcs = WCS(
    ...         {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.01, "CDELT2": 0.01, "CRPIX1": 1 - column}
    ...     )
    ...     return CCDData(np.full((1, 3), value), unit="adu", wcs=wcs)
    >>> mosaic = coadd([frame(0, 1.0), frame(2, 2.0)], frame(0, 0.0).wcs, (1, 6), order="nearest")
    >>> mosaic["data"].values[0]
    array([1. , 1. , 1.5, 2. , 2. , nan])
    """
    check_result_dtype(dtype, "coadd")
    opened = opened_frames(frames, unit)
    given, schema = in_one_unit(collect(opened))
    _check_frames(opened, given, weights)
    target, size = _grid(opened, given, wcs, shape)
    given, placed = on_grid(given, SkyGrid(target, size, kernel_of(order), pixfrac_of(order, pixfrac)))
    blot, rejection = _rejections(reject, given)
    given = _less_sky(given, sky, sky_box)
    measure = isinstance(flux_scale, str) and flux_scale == "overlaps"
    levels, scalars, weighting = _checked_levels(given, _stated_scale(flux_scale, given), None, weights)
    # matching looks at the scales of all frames at once
    agreement, samples = (None, ()) if reject is None or match is not None or measure else flux_agreement(given, placed)
    find_hot = isinstance(reject, str) and reject == AUTO and can_find_hot_pixels(placed)
    cleaned = _cleaned(blot, find_hot, given, placed, levels, scalars, measure=measure)
    images = placed.warp(cleaned, aperture=_check_maps(maps, given))
    if match is not None or measure:
        images = placed.corrections(given, levels, scalars, match, measure=measure).applied(images)
    rule = replace(
        plain_rule(images, schema, method),
        levels=levels,
        rejecting=Rejecting(reject=rejection, nkeep=int(nkeep), spread=_spread(rejection, placed)),
        least_used=_least_used(min_coverage, len(given.images)),
        exposures=given.exposures() if "exposure" in maps else (),
        uncertainty=_uncertainty(uncertainty, given),
        agreement=agreement,
    )
    plan = StackPlan(
        tuple(images),
        schema,
        rule,
        scalars,
        tuple(placed.warp(_feathered(given.images, weighting, feather), "bilinear")),
        dtype=dtype,
        skies=skies_of(given.images, size) if rejection is not None and rejection.needs_skies else (),
        places=placed.places,
        own_scalars=samples,
    )
    notes = _notes(sky, match, measure, find_hot, blot, feather, rule.least_used)
    return plan.result(_header(replace(given, images=images), rule, placed, notes), maps, rejections=rejections)


def _notes(
    sky: str | None, match: str | None, measure: bool, hot: bool, blot: Blotted | None, feather: float, least: int
) -> list[str]:
    """Return what HISTORY says of how frames were prepared, besides how they were combined."""
    said = {
        f"sky subtracted from each frame: {sky}": sky is not None,
        f"skies matched in the overlaps: {match}": match is not None,
        "flux scales measured in the overlaps": measure,
        "rejected before resampling: hot pixels that the other frames do not have": hot,
        f"rejected before resampling: {blot}": blot is not None,
        f"weights fall to 0 over {feather:g} pixels at the edges of frames": feather > 0,
        f"pixels of fewer than {least} frames are NaN": least > 1,
    }
    return [note for note, holds in said.items() if holds]


def empty_chunks(mosaic: xr.Dataset) -> int:
    """Return how many chunks of a mosaic lie outside of all frames: a store has no files for them."""
    array: Any = mosaic["data"].data
    label = read_label(array)
    places = label.plan.places if label is not None and isinstance(label.plan, Stack) else ()
    boxes = grid_boxes(array.chunks)
    return sum(not any(place.intersect(box).size for place in places) for box in boxes) if places else 0


def opened_frames(frames: Any, unit: Any = None) -> list[Any]:
    """Return frames and CCDData for whatever users give, those of trees one by one."""
    if isinstance(frames, str | os.PathLike | xr.Dataset | xr.DataTree) or not isinstance(frames, Iterable):
        frames = [frames]
    found: list[Any] = []
    for item in frames:
        several = [item]
        if isinstance(item, str | os.PathLike):
            several = [open_image(name_with_hdu(name), unit=unit) for name in expand_names([item])]
        for one in several:
            found += frames_of(one).values() if isinstance(one, xr.DataTree) else [one]
    return found


def _check_frames(opened: Sequence[Any], given: Given, weights: Any) -> None:
    """Refuse frames of different filters, and tell those that are there twice, or that are known to have no good pixel."""
    _warn_of_repeated(given)
    tell_empty(opened, given, weights)
    headers = [header_view(image.header) for image in given.images]
    for keyword in FILTERS:
        values = [(label, header.get(keyword)) for label, header in zip(given.labels, headers, strict=True)]
        stated = [(label, value) for label, value in values if value is not None]
        for label, other in stated[1:]:
            first_label, first = stated[0]
            if str(other).strip() != str(first).strip():
                raise ParameterError(
                    f"{label} has {keyword} = {other!r} and {first_label} has {first!r}: a mean of two bands is that of "
                    f"none; coadd the frames of each filter, or correct {keyword} by ds.ccd.with_header()."
                )


def _warn_of_repeated(given: Given) -> None:
    """Warn of files that are the same frame: their noise would count as independent. Equal arrays are taken for different ones."""
    first: dict[str, str] = {}
    again = []
    for image, label, name in zip(given.images, given.labels, given.names, strict=True):
        other = first.setdefault(image.plan.token, label)
        if name and other != label:
            again.append(f"{label} is {other}")
    if again:
        more = f" and {len(again) - 5} more" if len(again) > 5 else ""
        warn(
            f"frames are there more than once, and count as independent ones: {'; '.join(again[:5])}{more}. Leave them out.",
            RepeatedFrameWarning,
        )


def _checked_levels(
    given: Given, scale: Spec, zero: Spec, weights: Any
) -> tuple[Levels, tuple[tuple[str, Scalar], ...], list[Image]]:
    """Return what `levels_of` does; scales that are not above 0 are refused, as a frame would count as dark sky."""
    found = levels_of(given, scale, zero, weights, None, scale_name="flux_scale")
    levels = found[0]
    for number, label in zip(levels.scale, given.labels, strict=False):
        if not isinstance(number, str) and not levels.scale_is_statistic and not 0 < number < math.inf:
            raise ParameterError(
                f"flux_scale of {label} is {number:g} and must be above 0; correct its header, give numbers, or leave the frame out."
            )
    return replace(levels, no_variance_is_empty=True), *found[1:]


def _less_sky(given: Given, sky: Sky | None, box: int | tuple[int, int]) -> Given:
    """Return frames less their sky, if that is wanted."""
    return given if sky is None else replace(given, images=[without_sky(image, sky, box) for image in given.images])


def _cleaned(
    blot: Blotted | None,
    find_hot: bool,
    given: Given,
    placed: Placed,
    levels: Levels,
    scalars: Sequence[tuple[str, Scalar]],
    *,
    measure: bool,
) -> list[Image]:
    """Return frames with outliers in their masks, if a rule finds them there, or less their hot pixels, or as they are."""
    if blot is not None:
        return without_outliers(blot, given, placed, levels, scalars, measure=measure)
    if find_hot:
        return hot_pixels_left_out(given, placed, levels, scalars, measure=measure)
    return list(given.images)


def _stated_scale(flux_scale: Spec, given: Given) -> Spec:
    """Return the scale that frames state; None if overlaps tell it."""
    if not isinstance(flux_scale, str) or flux_scale in {"exposure", *STATISTICS} or given.is_keyword(flux_scale):
        return flux_scale
    if flux_scale != "overlaps":
        raise ParameterError(
            f"flux_scale {flux_scale!r} is neither 'exposure' nor 'overlaps', and the header of no frame has the keyword "
            f"{flux_scale!r}; give one that they have, or one number per frame."
        )
    return None


def _grid(opened: list[Any], given: Given, wcs: Any, shape: Any) -> tuple[Any, tuple[int, int]]:
    """Return the WCS and the shape of the mosaic."""
    if wcs is None:
        if shape is not None:
            raise ParameterError(f"shape {shape!r} needs the WCS of the grid; give wcs=, or leave shape out.")
        return find_optimal_grid(opened)
    target = celestial_target(wcs)
    if shape is None:
        labelled = zip(given.images, given.labels, strict=True)
        return bounded(target, [(celestial_wcs(image, label), image.shape) for image, label in labelled])
    return target, normalize_shape(shape)


def _rejections(reject: Rejection | Blotted | str | None, given: Given) -> tuple[Blotted | None, Rejection | None]:
    """Return the rule by which pixels of frames are rejected, or that for pixels of the mosaic, checked."""
    if reject == "blotted" or isinstance(reject, Blotted):
        return Blotted() if isinstance(reject, str) else reject, None
    if isinstance(reject, str) and reject not in {AUTO, *RULES}:
        raise ParameterError(f"reject {reject!r} must be None, 'auto', 'blotted' or one of {', '.join(RULES)}.")
    rule = rule_of("clipped" if isinstance(reject, str) and reject == AUTO else reject, given, "ccdproc")
    if rule is not None and rule.name in COUNTING:
        raise ParameterError(
            f"reject {rule.name!r} counts all frames or looks along lines, and on a pixel of a mosaic lie few of the frames; use "
            "Clipped(), SigmaClip() or VarianceClip() of lazyccd.rejection."
        )
    if isinstance(rule, SigmaClip):
        warn(
            "SigmaClip cuts the middle of stars where the seeing differs between frames; use Clipped(), which allows for it.",
            StarCoreWarning,
        )
    return None, rule


def _spread(rejection: Rejection | None, placed: Placed) -> tuple[tuple[float, ...], ...]:
    """Return which neighbours `Clipped` rejects with an input; see `lazyccd.kernels.stack.types.Rejecting.spread`."""
    if not isinstance(rejection, Clipped) or placed.grid.kernel == "nearest":
        return ()
    parts = spread_of(placed.grid.kernel, _scale(placed))
    return tuple(map(tuple, (np.outer(parts, parts)).tolist()))


def _scale(placed: Placed) -> float:
    """Return the side of a pixel of the mosaic in pixels of the frames, their median; 1 where no WCS tells it."""
    from astropy.wcs.utils import proj_plane_pixel_area  # takes long to import, and few operations need it

    if not all(hasattr(wcs, "wcs") for wcs in (placed.grid.wcs, *placed.sources)):
        return 1.0
    areas = [proj_plane_pixel_area(wcs) for wcs in (placed.grid.wcs, *placed.sources)]
    return float(np.sqrt(areas[0] / np.median(areas[1:])))


def _least_used(min_coverage: object, count: int) -> int:
    """Return the least number of inputs."""
    if not isinstance(min_coverage, int | np.integer) or min_coverage < 1:
        raise ParameterError(f"min_coverage {min_coverage!r} must be a whole number of frames, 1 or more.")
    if min_coverage > count:
        raise ParameterError(
            f"min_coverage {min_coverage} is more than the {count} frames that lie on the grid, so nothing would be left; lower it."
        )
    return int(min_coverage)


def _feathered(images: Sequence[Image], weights: Sequence[Image], width: float) -> list[Image]:
    """Return weights of pixels that fall to 0 towards the edges of each frame."""
    if not 0 <= width < math.inf:
        raise ParameterError(f"feather {width!r} must be a number of pixels, 0 or more.")
    if width == 0:
        return list(weights)
    found = []
    for number, image in enumerate(images):
        source = weights[number] if weights else None
        step = Apply(
            image.shape,
            make_dtypes(data=np.float64),
            kernel=edge_weights,
            sources=() if source is None else (Input(source.plan),),
            params=make_params(shape=image.shape, width=float(width)),
        )
        found.append(replace(source or image, plan=step, graphs=() if source is None else source.graphs))
    return found


def _check_maps(maps: Sequence[str], given: Given) -> bool:
    """Return whether variances for apertures are asked for, after checking that they can be had."""
    if APERTURE not in maps:
        return False
    for label, image in zip(given.labels, given.images, strict=True):
        if not image.has_variance:
            raise ParameterError(
                f"{label} has no uncertainty for maps={APERTURE!r}; make one with create_deviation, or leave the map out."
            )
    return True


def _uncertainty(uncertainty: str | None, given: Given) -> str:
    """Return the name of what the uncertainty is made from."""
    if uncertainty is None:
        uncertainty = "propagated" if all(image.has_variance for image in given.images) else "scatter"
    if uncertainty not in {"propagated", "scatter"}:
        raise ParameterError(f"uncertainty {uncertainty!r} must be None, 'propagated' or 'scatter'.")
    return uncertainty_name(uncertainty, None, given)


def _header(given: Given, rule: Any, placed: Placed, notes: Sequence[str]) -> StackHeader:
    """Return what becomes of the first frame's header."""
    header = header_of(given, rule, keep_wcs=True)
    cards: list[NewCard] = [("RESAMPLE", placed.grid.kernel, "kernel by which frames were resampled")]
    if hasattr(placed.grid.wcs, "wcs"):
        scale = _scale(placed)
        factor = noise_factor(placed.grid.kernel, scale, placed.grid.pixfrac)
        cards.append(("PIXRATIO", float(f"{scale:.6g}"), "side of a pixel in pixels of the frames"))
        cards.append(("NOISEFAC", float(f"{factor:.4g}"), "noise in apertures over that of single pixels"))
    if placed.grid.pixfrac != 1:
        cards.append(("PIXFRAC", placed.grid.pixfrac, "part of their side that pixels of frames shrank to"))
    if placed.missing:
        notes = [*notes, f"frames that do not lie on the grid: {', '.join(placed.missing)}"]
    return header._replace(cards=[*header.cards, *cards], notes=(*header.notes, *notes))

"""What the overlaps of frames say of their sky and their flux scale, as scalars of the plan, and frames that are corrected.

1. Each frame is read once, to means on cells of the grid (`cells_of_frames`): a scalar.
2. From the cells of all frames one scalar is made, which has a row per frame (`find_corrections`).
3. A chunk of the mosaic depends on that, and corrects the frames that it resamples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import compute

from lazyccd.errors import ParameterError
from lazyccd.frame.core import CORRECTIONS, Image
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping
from lazyccd.kernels.block import ALL_PLANES, Array, Block
from lazyccd.kernels.resample import cells as kernels
from lazyccd.kernels.stack.scaling import Levels, find_scaling
from lazyccd.ops.mosaic.flux import check_flux, measure_flux
from lazyccd.ops.mosaic.matching import COLUMNS, COUNTS, FrameCells, Match, match_backgrounds
from lazyccd.ops.stack.inputs import Given
from lazyccd.plan.lower import lower_scalars, read_label
from lazyccd.plan.steps import Apply, Input, Reduction, Scalar, make_params, walk
from lazyccd.sections import Region

if TYPE_CHECKING:
    from astropy.table import Table

CELLS_ACROSS = 24
"""How many cells lie across a frame, about: enough for its stars to stand out, and few enough for thousands of frames."""

SIDES = (8, 512)
"""Least and largest side of a cell in pixels of the output."""

TILE = (2048, 2048)
"""Tiles of a frame whose cells are summed: each gives the sums of all cells of the frame."""

WHOLE = 0.9
"""Part of a cell that good pixels have to cover: the mean of a part lies elsewhere, and on a slope it is another one."""

APPLIED = ("factor", "constant", "slope_y", "slope_x")
"""What is applied to a warped frame, before the scale that it states."""

FLUX = {
    "flux_scale": "factor by which the frame was multiplied",
    "flux_ratio": "flux of stars after the scale that the frame states, over that of the frames on it",
    "flux_ratio_error": "relative standard deviation of that",
}
"""What is found of the flux of each frame."""


@dataclass(frozen=True)
class Overlaps:
    """What is to be found from overlaps."""

    match: Match | None
    """How the sky is matched; None leaves it."""

    measure: bool
    """Whether flux scales are measured; else those that are stated are checked."""

    levels: Levels
    """Scales that the frames state."""

    names: tuple[str, ...]
    """What the frames are called."""

    has_variance: tuple[bool, ...]
    """Whether they have uncertainties."""

    cell: int
    """Side of a cell in pixels of the output."""

    places: tuple[Region, ...]
    """Cells that each frame can touch."""

    def middle(self, number: int) -> tuple[float, float]:
        """Return the pixel of the output at which the plane of a frame is its constant."""
        y0, y1, x0, x1 = self.places[number]
        return (y0 + y1) / 2 * self.cell - 0.5, (x0 + x1) / 2 * self.cell - 0.5


def overlaps_of(
    places: Sequence[Region], given: Given, levels: Levels, match: Match | None, *, measure: bool
) -> Overlaps:
    """Return what is to be found for frames at places of a grid."""
    if match not in {None, "constant", "plane"}:
        raise ParameterError(f"match {match!r} must be None, 'constant' or 'plane'.")
    # one size for all: frames share cells
    usual = float(np.median([min(place.shape) for place in places])) / CELLS_ACROSS
    cell = int(2 ** np.clip(np.round(np.log2(max(usual, 1))), *np.log2(SIDES)))
    touched = tuple(Region(p.y0 // cell, -(-p.y1 // cell), p.x0 // cell, -(-p.x1 // cell)) for p in places)
    has_variance = tuple(image.has_variance for image in given.images)
    return Overlaps(match, measure, levels, tuple(given.labels), has_variance, cell, touched)


def corrections_of(
    images: Sequence[Image],
    sources: Sequence[Any],
    grid: FrozenWCS,
    shape: tuple[int, int],
    overlaps: Overlaps,
    scalars: Sequence[tuple[str, Scalar]],
) -> Scalar:
    """Return the corrections of frames as one scalar, which has a row per frame.

    Parameters
    ----------
    images, sources
        The frames on their own pixels, and their WCS.
    grid, shape
        The WCS of the output, and its shape.
    overlaps
        What is to be found.
    scalars
        Those that the levels name.
    """
    cells = tuple(
        (f"cells_{k}", _cells(image, SkyMapping(FrozenWCS.of(source), grid, shape), overlaps, k))
        for k, (image, source) in enumerate(zip(images, sources, strict=True))
    )
    reduction = Reduction(
        images[0].plan,
        partial=no_partial,
        final=find_corrections,
        params=make_params(overlaps=overlaps),
        scalars=(*cells, *((name, scalar) for name, scalar in scalars if name in overlaps.levels.scale)),
        # of no pixel of the frame: all that it needs are the scalars
        region=Region(0, 0, 0, 0),
    )
    what = f"sky and flux of {len(images)} frames in their overlaps"
    return Scalar(reduction=reduction, what=what, told=partial(as_attribute, overlaps))


@dataclass(frozen=True)
class Corrections:
    """What overlaps say of frames, as a scalar."""

    overlaps: Overlaps
    scalar: Scalar

    def applied(self, images: Sequence[Image]) -> list[Image]:
        """Return frames on the grid with the corrections of their rows."""
        return [corrected(image, self.scalar, self.overlaps, k) for k, image in enumerate(images)]


def _cells(image: Image, coordinates: SkyMapping, overlaps: Overlaps, number: int) -> Scalar:
    """Return the means of a frame on cells of the grid, and their variances."""
    y0, y1, x0, x1 = overlaps.places[number]
    reduction = Reduction(
        image.plan,
        partial=frame_sums,
        final=frame_means,
        params=make_params(
            coordinates=coordinates,
            cell=(overlaps.cell, overlaps.cell),
            place=(y0, x0, y1 - y0, x1 - x0),
            bad_bits=image.schema.bad_bits,
            has_variance=image.has_variance,
        ),
        planes=frozenset({"data", "variance", "mask"} & image.plan.dtypes.keys()),
        region=Region.full(image.shape),
        tile=TILE,
    )
    return Scalar(reduction=reduction, what="cells of a frame")


def frame_sums(block: Block, *, has_variance: bool, **params: Any) -> Array:
    """Return sums over the cells that a tile touches; see `sum_cells`."""
    return kernels.sum_cells(block, **params)


def frame_means(partials: Sequence[Array], *, cell: tuple[int, int], has_variance: bool, **_: object) -> Array:
    """Return the means of the cells of a frame that it covers, and their variances; see `mean_cells`."""
    found = kernels.mean_cells(partials, cell=cell, has_variance=has_variance)
    area = np.add.reduce([partial[1] for partial in partials], axis=0)
    return np.where(area >= WHOLE * cell[0] * cell[1], found, np.nan)


def no_partial(block: Block, **_: object) -> Array:
    """Return nothing; a reduction of scalars alone has no tiles."""
    return np.empty(0)


def find_corrections(partials: Sequence[Array], *, overlaps: Overlaps, **scalars: Array) -> Array:
    """Return a row per frame: what is applied to it, what was found of its flux, and the columns of `BackgroundMatch`.

    Raises
    ------
    ParameterError
        Raised if the flux of a frame is far from the scale that it states.
    """
    count, side = len(overlaps.names), overlaps.cell
    stated = find_scaling(replace(overlaps.levels, weights=(), weights_are_variances=False), count, scalars).multipliers
    frames = [
        _frame_cells(scalars[f"cells_{k}"] * np.array([stated[k], stated[k] ** 2])[:, None, None], overlaps, k)
        for k in range(count)
    ]
    # the scatter of the pixels in a cell is that of its stars: where it stands for their noise, no star stands out
    plain = [
        f if own else f._replace(variances=0 * f.variances)
        for f, own in zip(frames, overlaps.has_variance, strict=True)
    ]
    flux = measure_flux(plain)
    factor = np.ones(count)
    if overlaps.measure:
        factor = _relative(flux.ratio, flux.group)
        frames = [
            f._replace(values=f.values * one, variances=f.variances * one**2)
            for f, one in zip(frames, factor, strict=True)
        ]
    else:
        check_flux(flux, overlaps.names, stated)
    sky = np.zeros((count, len(COLUMNS)))
    if overlaps.match is not None:
        sky = match_backgrounds(frames, (side, side), overlaps.match).array
    applied = np.column_stack([factor, sky[:, :3] / stated[:, None]])
    return np.column_stack([applied, factor * stated, flux.ratio, flux.error, sky])


def _frame_cells(found: Array, overlaps: Overlaps, number: int) -> FrameCells:
    """Return the cells of a frame, which are known from others by what is in them."""
    place = overlaps.places[number]
    token = hashlib.sha256(repr(place).encode() + np.ascontiguousarray(found).tobytes()).hexdigest()
    return FrameCells(found[0], found[1], (place.y0, place.x0), token, overlaps.names[number])


def _relative(ratio: Array, group: Array) -> Array:
    """Return the factors that bring frames to one scale, whose geometric mean is 1 in each group."""
    logs = -np.log(ratio)
    for number in np.unique(group):
        logs[group == number] -= logs[group == number].mean()
    return np.exp(logs)


def corrected(image: Image, corrections: Scalar, overlaps: Overlaps, number: int) -> Image:
    """Return a warped frame with the corrections of its row."""
    plan = Apply(
        image.shape,
        image.plan.planes,
        kernel=kernels.corrected,
        sources=(Input(image.plan, uses=tuple((plane, (plane,)) for plane in ALL_PLANES)),),
        params=make_params(row=number, middle=overlaps.middle(number)),
        scalars=(("corrections", corrections),),
    )
    return replace(image, plan=plan)


def mosaic_corrections(mosaic: xr.Dataset) -> Table:
    """Return what was found from the overlaps of the frames of a mosaic, one row per frame.

    Parameters
    ----------
    mosaic
        What `coadd` returned with ``match`` or ``flux_scale="overlaps"``, or what was read from a file or store of it.

    Returns
    -------
    astropy.table.Table
        Computed now, from one pass over the frames, or read: a FITS file has it in its extension CORRECTIONS, a store in the
        attribute ``mosaic_corrections`` of its image. For each frame its flux scale, the measured ratio of stars, the constant and
        slopes that are subtracted after scaling, their errors, the connected group, how many frames overlap, and rms
        differences from them before and after. Columns have descriptions.

    Raises
    ------
    ParameterError
        Raised if the mosaic was not made like that.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astropy.wcs import WCS
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.01, "CDELT2": 0.01})
    >>> frames = [CCDData(np.full((64, 64), level), unit="adu", wcs=wcs) for level in (10.0, 14.0)]
    >>> from lazyccd import coadd
    >>> mosaic_corrections(coadd(frames, wcs, (64, 64), match="constant"))["constant"].round(6).tolist()
    [-2.0, 2.0]
    """
    if CORRECTIONS in mosaic.attrs:
        return _as_table(mosaic.attrs[CORRECTIONS])
    array = mosaic["data"].data
    label = read_label(array) if hasattr(array, "dask") else None
    for step in walk(label.plan) if label is not None else ():
        if isinstance(step, Apply) and step.kernel is kernels.corrected:
            scalar = dict(step.scalars)["corrections"]
            rows = scalar.given if scalar.given is not None else compute(*lower_scalars([scalar], [array.dask]))[0]
            assert scalar.told is not None
            return _as_table(scalar.told(rows)[CORRECTIONS])
    raise ParameterError(
        "the frame is no mosaic whose frames were matched, nor was it written as one; give what coadd(match=...) returned, or a "
        "product of it."
    )


def as_attribute(overlaps: Overlaps, rows: Array) -> dict[str, Any]:
    """Return what was found of each frame as an attribute: columns as lists, None for what is not known."""
    names = [*FLUX, *COLUMNS]
    columns: dict[str, list[Any]] = {"frame": list(overlaps.names)}
    for name, values in zip(names, rows[:, len(APPLIED) :].T, strict=True):
        kind = int if name in COUNTS else bool if name == "regularised" else float
        columns[name] = [kind(value) if np.isfinite(value) else None for value in values]
    return {CORRECTIONS: columns}


def _as_table(columns: Mapping[str, Sequence[Any]]) -> Table:
    """Return what was found of each frame, as a table."""
    from astropy.table import Table  # takes a while, and few look at it

    texts = FLUX | COLUMNS
    table = Table({name: [np.nan if value is None else value for value in values] for name, values in columns.items()})
    for name in set(texts) & set(table.colnames):
        table[name].description = texts[name]
    return table

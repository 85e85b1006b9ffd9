"""`combine`: from what a caller says to the lazy stack.

`combine` collects the frames (`lazyccd.ops.stack.inputs`), brings them into one unit and one place (`.offsets`), and makes a
`Rule` of its arguments, with the help of `.rejection` and `.scaling`. A `StackPlan` turns frames and rule into the step that
combines them, whose kernel is `lazyccd.kernels.stack.combine.combine_frames`. `deliver` gives the result the form that the
inputs have, or writes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ParameterError
from lazyccd.frame.ccddata import to_ccddata
from lazyccd.frame.core import CORRECTIONS, DATA, Image
from lazyccd.frame.header import header_view
from lazyccd.frame.stack_header import StackHeader, stack_header
from lazyccd.kernels import pointwise
from lazyccd.kernels.block import APERTURE, STACK_MAPS
from lazyccd.kernels.stack.combine import BITS_PER_WORD, METHODS, combine_frames, rejection_words
from lazyccd.kernels.stack.types import Dtypes, ImcombineRule, MaskBits, Rejecting, Rule
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.stack.inputs import IN_TREE, Given, check_shapes, collect, in_one_unit, tree_by_tree, written
from lazyccd.ops.stack.offsets import offsets_of, on_each_other, place
from lazyccd.ops.stack.rejection import (
    DEVIATIONS,
    Extrema,
    Limits,
    MinMax,
    Rejection,
    ccdproc_sigma_clip,
    check_imcombine,
    clips_of,
    rule_of,
    statistic_name,
)
from lazyccd.ops.stack.scaling import Spec, found_levels, levels_of
from lazyccd.plan.chunks import BANDS_PER_HALO, LARGEST_STACK_BYTES, STACK_BYTES, Grid, mosaic_grid, stack_grid
from lazyccd.plan.footprints import Footprint, Halo, Lines, PlaneMap, Same
from lazyccd.plan.lower import lower_image
from lazyccd.plan.steps import Apply, Input, Join, Scalar, Stack, Step, make_dtypes, make_params, rebuilt, shared_by_all
from lazyccd.sections import Region

if TYPE_CHECKING:
    import xarray as xr


@tree_by_tree
def combine(
    img_list: Any,
    output_file: str | os.PathLike[str] | None = None,
    method: Literal["average", "median", "sum"] = "average",
    weights: Any = None,
    scale: Spec = None,
    mem_limit: float | None = None,
    clip_extrema: bool = False,
    nlow: int = 1,
    nhigh: int = 1,
    minmax_clip: bool = False,
    minmax_clip_min: float | None = None,
    minmax_clip_max: float | None = None,
    sigma_clip: bool = False,
    sigma_clip_low_thresh: float | None = 3,
    sigma_clip_high_thresh: float | None = 3,
    sigma_clip_func: str | Callable[..., Any] = "mean",
    sigma_clip_dev_func: str | Callable[..., Any] = "std",
    dtype: npt.DTypeLike | None = None,
    combine_uncertainty_function: str | Callable[..., Any] | None = None,
    overwrite_output: bool = False,
    *,
    reject: Rejection | str | None = None,
    nkeep: int = 1,
    grow: float = 0.0,
    zero: Spec = None,
    statsec: str | None = None,
    offsets: Any = None,
    uncertainty: Literal["propagated", "scatter", "ccdproc"] | None = None,
    flavor: Literal["ccdproc", "iraf"] = "ccdproc",
    maps: Sequence[str] = (),
    rejections: bool = False,
    hdu: Any = None,
    unit: Any = None,
) -> Any:
    r"""Combine frames pixel by pixel, in bounded memory.

    Parameters
    ----------
    img_list
        Frames, CCDData, paths, globs and ``@lists``, in any mixture, or one string with commas between paths. Of trees of
        frames, those of one name are combined, and the result is a tree; other arguments are then the same for all names, or
        mappings by name.
    output_file
        FITS file to write, or Zarr store if the name ends in ``.zarr``.
    method
        ``average``, ``median`` or ``sum``. A sum adds the inputs that are left, however few.
    weights
        For averages and sums: one number per frame; a keyword of the headers, ``"KEY"`` or ``"!KEY"``; ``"exposure"``;
        ``"variance"``, one over each frame's median variance; for each pixel ``"smoothed"``, one over the median variance of
        5 x 5 pixels, or ``"pixel"``, one over its own, which biases a mean low where photons are few; or an image per frame.
    scale
        Factors: one per frame, a keyword, or a function that gives the factor for a frame's whole plane (a masked array if
        some of its pixels are bad). Or what is made equal to the first frame's: ``"mode"``, ``"median"``, ``"mean"``,
        ``"clipped"`` (mean within 3 standard deviations) of the good pixels, or ``"exposure"``.
    mem_limit
        Bytes that the bands of all frames may take in a task, at most 256 MiB.
    clip_extrema, nlow, nhigh
        Whether the ``nlow`` lowest and the ``nhigh`` highest inputs are rejected.
    minmax_clip, minmax_clip_min, minmax_clip_max
        Whether inputs below or above these values are rejected; None for no limit.
    sigma_clip, sigma_clip_low_thresh, sigma_clip_high_thresh
        Whether inputs this many deviations below or above the center are rejected, once; None for no limit.
    sigma_clip_func, sigma_clip_dev_func
        The center, ``"mean"`` or ``"median"``, and the deviation, ``"std"`` or ``"mad_std"``, or NumPy's or astropy's functions
        of these names.
    dtype
        The dtype of the result, float32 or float64; by default that of the inputs.
    combine_uncertainty_function
        With ``uncertainty="ccdproc"``: ``"std"`` or ``"mad_std"``, or the function; MAD for medians by default.
    overwrite_output
        Replace a file of that name.
    reject
        A rule of `lazyccd.rejection`, such as ``SigmaClip(low=3, high=3)``, by which inputs are rejected after scaling; or the
        name of one, ``"sigclip"``, for its defaults. See Notes.
    nkeep
        How many inputs ``reject`` and ``grow`` leave at least; those that are least off are restored. If negative, how many
        they may reject at most.
    grow
        Radius in pixels within which neighbours of a rejected input in the same frame are rejected too. It is the halo of the
        result.
    zero
        Terms added after scaling, or what is made equal to the first frame's; as ``scale``.
    statsec
        Section in which statistics are taken, such as ``[101:900,*]``, or its keyword; by default the whole frame.
    offsets
        Whole-pixel offsets of the frames: ``"wcs"``, ``"physical"`` (LTV and original coordinates), or rows and columns for
        each frame, such as `register` gives. The result has the common footprint.
    uncertainty
        ``"propagated"`` from those of the inputs (the default if all have one), ``"scatter"`` from the sample variance of
        the inputs that are left, or ``"ccdproc"`` (the default otherwise).
    flavor
        ``"ccdproc"``, or ``"iraf"`` for the bits of IRAF's imcombine: single precision, its order of sums, its statistics of at
        most 100000 pixels, its weights, and the mean of its ``mclip=no``, which first leaves out the lowest and highest value.
    maps
        Variables to add: ``"n_used"``, ``"n_rejected"``, ``"exposure"`` (sum of EXPTIME of the inputs used).
    rejections
        Add the variable ``rejected`` (frame, y, x): which inputs were rejected.
    hdu, unit
        For files, as in `open_fits`.

    Returns
    -------
    xr.Dataset or CCDData
        Lazy, one task per chunk of whole rows, in which the frames are read in bands under a byte budget; a computed CCDData
        if all inputs are. Readers of a lazy result depend on its chunks. With ``output_file``, the frame in that file.

    Raises
    ------
    ArgumentTypeError
        Raised if an input is not a frame.
    MissingFileError, FormatError
        Raised if a file is not there or cannot be read.
    ParameterError
        Raised if there is no frame, or an argument has a value that is not described above.
    ShapeError
        Raised if shapes differ and there are no offsets.
    UnitError
        Raised if units cannot be converted to those of the first frame.
    MemoryLimitError
        Raised if the limit does not hold one row of all frames.

    Notes
    -----
    Bad inputs are left out of everything. Where all are bad, those of the least bad class are used (INTERP, SAT, then CR and
    LOW_FLAT, then all others) and nothing is rejected; where none is left, the result is NO_DATA and NaN (a sum 0). The mask has
    the planes of the inputs that were used, CLIPPED where some were rejected, and SAT where more than a tenth of the weight of
    the inputs with data was left out because of it.

    ccdproc's clips (extrema, limits, sigma, in this order) see values as they are. Then frames are scaled, and ``reject`` sees
    them scaled. IRAF's imcombine (Valdes) has ``sigclip``, ``avsigclip``, ``minmax``, ``ccdclip``, ``crreject`` and ``pclip``;
    DRAGONS ``varclip``; Siril ``winsorized`` and ``linearfit``; SWarp ``clipped``; ``gesdt`` is Rosner's (1983, Technometrics 25, 165). Without
    scaling, ``extrema`` and ``limits`` are ccdproc's. The classes say what each does.

    With weights :math:`w` and variances :math:`v` of the scaled inputs, the variance of an average is :math:`\sum w^2 v /
    (\sum w)^2`, of a sum :math:`\sum w^2 v`, of a median :math:`c_n \sum v / n^2`, where :math:`c_n` is 1, 1, 1.35, 1.19,
    ..., towards :math:`\pi / 2`. ``"scatter"`` takes the sample variance (n - 1) for every :math:`v`; ``"ccdproc"``
    the squares of :math:`s / \sqrt n` (average), :math:`s \sqrt n` (sum) and :math:`1.4826\,\mathrm{MAD} / \sqrt n` (median)
    with the standard deviation :math:`s` of n, which are too small for few frames.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd.rejection import SigmaClip
    >>> frames = [CCDData(np.full((1, 1), value), unit="adu") for value in (1.0, 2.0, 3.0, 4.0, 99.0)]
    >>> combine(frames, reject=SigmaClip(deviation="mad_std")).data
    array([[2.5]])
    """
    check_result_dtype(dtype, "combine")
    given, schema = in_one_unit(collect(img_list, hdu=hdu, unit=unit))
    count = len(given.images)
    shifts = offsets_of(given, offsets)
    # frames with offsets get a common footprint, whatever their shapes
    if shifts is None:
        check_shapes(given.images, given.labels)
    sigma = (sigma_clip_low_thresh, sigma_clip_high_thresh, sigma_clip_func, sigma_clip_dev_func)
    # the order in which ccdproc's combine runs them, whichever the caller names first
    clips = clips_of(
        Extrema(nlow, nhigh) if clip_extrema else None,
        Limits(minmax_clip_min, minmax_clip_max) if minmax_clip else None,
        ccdproc_sigma_clip(*sigma) if sigma_clip else None,
        count=count,
    )
    _check_unused_counts(reject, (nlow, nhigh), used=clip_extrema)
    rejection = rule_of(reject, given, flavor)
    if flavor == "iraf":
        check_imcombine(clips, weights)
    levels, scalars, weighting = levels_of(given, scale, zero, weights, statsec, sampled=flavor == "iraf")
    images = given.images
    if shifts is not None:
        # after the levels, which are those of a frame's own pixels and not of the NaN around it
        images, weighting = place(images, shifts), place(weighting, shifts) if weighting else []
    rule = replace(
        plain_rule(images, schema, method),
        levels=levels,
        rejecting=Rejecting(clips=clips, reject=rejection, nkeep=int(nkeep), grow=float(grow)),
        exposures=given.exposures() if "exposure" in maps else (),
        uncertainty=uncertainty_name(uncertainty, combine_uncertainty_function, given),
    )
    if output_file is not None and scalars:  # the file is to say what was found
        rule, scalars = replace(rule, levels=found_levels(rule.levels, scalars, given)), ()
    rule = as_imcombine(rule, given, rejection) if flavor == "iraf" else rule
    header = header_of(given, rule, keep_wcs=shifts is not None or on_each_other(given))
    plan = StackPlan(tuple(images), schema, rule, scalars, tuple(weighting), mem_limit, dtype)
    # what is only written needs no frame; one with rejections has more than files hold, and is refused
    is_written = output_file is not None and output_file is not IN_TREE and not rejections
    result = plan.image(header, maps) if is_written else plan.result(header, maps, rejections=rejections)
    return deliver(result, given, header, output_file, overwrite=overwrite_output)


def check_result_dtype(dtype: npt.DTypeLike | None, function: str) -> None:
    """Refuse a dtype that a stack cannot have: integers would lose fractions, overflow in silence, and cannot be NaN."""
    try:
        ok = dtype is None or np.dtype(dtype).newbyteorder("=") in (np.float32, np.float64)
    except TypeError:
        ok = False
    if not ok:
        raise ParameterError(
            f"dtype {dtype!r} of {function}() must be float32 or float64: a stack has fractions, an uncertainty and NaN. For "
            "integers, combine in float64, then round the values and check their range."
        )


def _check_unused_counts(reject: Rejection | str | None, counts: tuple[int, int], *, used: bool) -> None:
    """Refuse ``nlow`` and ``nhigh`` beside ``reject="minmax"``: ccdproc's numbers would be taken for the rule's."""
    if reject == MinMax.name and counts != (1, 1) and not used:
        raise ParameterError(
            f"nlow {counts[0]} and nhigh {counts[1]} are of clip_extrema; use reject=MinMax(nlow={counts[0]}, "
            f"nhigh={counts[1]}) of lazyccd.rejection."
        )


def as_imcombine(rule: Rule, given: Given, rejection: Rejection | None) -> Rule:
    """Return a rule that is carried out as IRAF's imcombine does, in its single precision."""
    # a stack of stacks: imcombine's weights are in proportion to NCOMBINE
    made_of = [header_view(image.header).get("NCOMBINE", 1) for image in given.images]
    return replace(
        rule,
        dtypes=replace(rule.dtypes, work="float32"),
        iraf=ImcombineRule(
            ncombine=tuple(number if isinstance(number, int) else 1 for number in made_of),
            rejection=None if rejection is None else rejection.imcombine(rule.count),
        ),
    )


def uncertainty_name(uncertainty: str | None, function: str | Callable[..., Any] | None, given: Given) -> str:
    """Return the name of what a result's uncertainty is made from."""
    missing = [label for label, image in zip(given.labels, given.images, strict=True) if not image.has_variance]
    # frames without uncertainties keep the numbers that ccdproc gives them
    if uncertainty is None:
        uncertainty = "ccdproc" if missing or function is not None else "propagated"
    if uncertainty not in {"propagated", "scatter", "ccdproc"}:
        raise ParameterError(f"uncertainty {uncertainty!r} must be None, propagated, scatter or ccdproc.")
    if uncertainty == "propagated" and missing:
        raise ParameterError(
            f"{missing[0]} has no uncertainty to propagate; make one with create_deviation, or use uncertainty='scatter'."
        )
    if function is None or uncertainty != "ccdproc":
        return uncertainty
    known = {**DEVIATIONS, "sigma_func": "mad_std"}
    return f"ccdproc_{statistic_name(function, known, 'combine_uncertainty_function')}"


def header_of(given: Given, rule: Rule, *, keep_wcs: bool) -> StackHeader:
    """Return what becomes of the first header."""
    # weights that only tasks will find count as equal in the mean date: a header is never computed for
    weights = [1.0 if isinstance(w, str) else w for w in rule.levels.weights] or [1.0] * len(given.images)
    return stack_header(
        [image.header for image in given.images],
        given.names,
        weights,
        method=rule.method,
        keep_wcs=keep_wcs,
        # the levels of frames are brought to that of the first, other factors are whatever was asked for
        is_scaled=bool(rule.levels.scale) and not rule.levels.scale_is_statistic,
        notes=tuple(notes_of(rule)),
    )


def notes_of(rule: Rule) -> Iterator[str]:
    """Yield what a header says of how frames were combined."""
    yield f"lazyccd combine: {rule.method} of {rule.count} frames"
    rejecting: Any = rule.rejecting
    for rejection in (*rejecting.clips, *([rejecting.reject] if rejecting.reject else [])):
        yield f"rejected: {rejection.describe()}"
    if rejecting.grow >= 1:
        yield f"rejected: neighbours within {rejecting.grow:g} pixels"
    if rejecting.spread:
        yield "rejected: what resampling spreads of strong outliers"
    for what in ("scale", "zero", "weights"):
        per_frame = getattr(rule.levels, what)
        # what tasks will find has a name here and no number yet
        if per_frame and not isinstance(per_frame[0], str):
            is_level = what != "weights" and getattr(rule.levels, f"{what}_is_statistic")
            name = "variances" if what == "weights" and rule.levels.weights_are_variances else what
            yield f"{name}{' levels' if is_level else ''}: {' '.join(f'{n:.6g}' for n in per_frame)}"


def deliver(
    result: xr.Dataset | Image,
    given: Given,
    header: StackHeader,
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool,
) -> Any:
    """Write the result if there is an output file, and return it in the form of the inputs: CCDData of CCDData.

    Parameters
    ----------
    result
        The lazy stack; its image if it is to be written.
    given
        The frames that were combined.
    header
        What becomes of the first header.
    output
        The file; None, or `IN_TREE` where a tree is written as a whole.
    overwrite
        Whether a file of that name is replaced.
    """
    made: Any = result
    if output is not None and output is not IN_TREE:
        made = written(result, output, overwrite=overwrite)
    if given.like is None:
        return made
    ccd = to_ccddata(made, like=given.like)
    header.apply_to_meta(ccd.meta)
    # ccdproc's results always have a mask
    if ccd.mask is None:
        ccd.mask = np.zeros(ccd.data.shape, bool)
    return ccd


WITHOUT_VARIANCE: PlaneMap = (("data", ("data",)), ("mask", ("mask",)))
"""Each plane from the same plane; the variance from nothing."""

CLASSES = (("INTERP",), ("SAT",), ("CR", "LOW_FLAT"), (), ("NO_DATA",))
"""Planes from the least to the worst, for pixels of which all inputs are bad; the empty class holds all others."""


def plain_rule(images: Sequence[Image], schema: MaskSchema, method: str) -> Rule:
    """Return a rule without levels and rejections."""
    if method not in METHODS:
        raise ParameterError(f"method {method!r} must be one of {', '.join(METHODS)}.")
    # ccdproc stacks in float64 always; float32 frames take half the memory in their own (docs/deviations.md)
    dtype = np.result_type(*(image.dtype for image in images)).name
    return Rule(
        method=method,
        count=len(images),
        dtypes=Dtypes(work=dtype, result=dtype, mask=schema.dtype.name),
        masks=mask_bits(images, schema),
    )


def mask_bits(images: Sequence[Image], schema: MaskSchema) -> MaskBits:
    """Return what the bits of the frames' masks mean in the stack."""
    named = schema.bits(*(name for group in CLASSES for name in group))
    ranks = [schema.bits(*group) if group else schema.bad_bits & ~named for group in CLASSES]
    return MaskBits(
        remaps=tuple(image.schema.remap(schema) if image.has_mask else None for image in images),
        bad=schema.bad_bits,
        # a plane that does not count as bad leaves its inputs good, and these need no class
        ranks=tuple(bits & (schema.bad_bits | schema.bits("NO_DATA")) for bits in ranks),
        # where SAT does not count as bad, no weight is lost because of it
        saturated=schema.bits("SAT") & schema.bad_bits,
        clipped=schema.bits("CLIPPED"),
        no_data=schema.bits("NO_DATA"),
    )


@dataclass(frozen=True)
class StackPlan:
    """A stack before it is a step: frames in one place and unit, and how they are combined."""

    images: tuple[Image, ...]
    """The frames."""

    schema: MaskSchema
    """The mask planes of all frames."""

    rule: Rule
    """How they are combined."""

    scalars: tuple[tuple[str, Scalar], ...]
    """Scales, zero points and weights that tasks find, by the names that the rule has for them."""

    weights: tuple[Image, ...]
    """Weights of pixels, one image per frame, or none."""

    mem_limit: float | None = None
    """Bytes that the bands of all frames may take in a task."""

    dtype: npt.DTypeLike | None = None
    """Of the result; that of the frames if None."""

    skies: tuple[Step, ...] = ()
    """Images of the sky of each frame, then of its variance, for a rejection that is about what is above it; or none."""

    places: tuple[Region, ...] = ()
    """Where each frame lies, in a mosaic; empty if all have pixels everywhere."""

    own_scalars: tuple[tuple[str, Scalar], ...] = ()
    """What the agreement of the rule is found from, one scalar per frame, in a mosaic; or none."""

    def step(self, maps: Sequence[str] = ()) -> Stack:
        """Return the step that combines the frames."""
        dtype = self.rule.dtypes.result if self.dtype is None else np.dtype(self.dtype).name
        planes = make_dtypes(
            data=dtype,
            variance=dtype,
            mask=self.rule.dtypes.mask,
            **{name: kind for name, kind in (STACK_MAPS | {APERTURE: dtype}).items() if name in maps},
        )
        # a master that all frames share is one error of the stack, however many frames there are; in a mosaic, its pixels lie
        # elsewhere on the sky in each frame
        is_shared = self.rule.uncertainty == "propagated" and not self.places
        own = self.without_masters() if is_shared else []
        rule = replace(
            self.rule,
            dtypes=replace(self.rule.dtypes, result=dtype),
            has_pixel_weights=bool(self.weights),
            has_skies=bool(self.skies),
            shares_masters=bool(own),
        )
        # variances are as many bytes as the data: they are read only if a rule or the result asks for them
        needs = ["data", "mask", *(["variance"] if rule.needs_variance else [])]
        more = {"variance": ["variance"] if rule.uncertainty == "propagated" else [], APERTURE: [APERTURE]}
        uses: PlaneMap = tuple((name, (*needs, *more.get(name, []))) for name, _ in planes)
        frames = (*map(without_own_flags, self.images), *(image.plan for image in self.weights), *self.skies, *own)
        return Stack(
            self.images[0].shape,
            planes,
            kernel=combine_frames,
            frames=frames,
            uses=uses,
            params=make_params(rule=rule),
            scalars=self.scalars + self.own_scalars,
            own_scalars=tuple(name for name, _ in self.own_scalars),
            footprint=self.footprint,
            # one byte for each rejected and one for each grown input of a whole band, see `clipped_batches`
            scratch_bytes=2 * rule.count if rule.rejecting.reach else 0,
            budget_bytes=self.budget(frames),
            places=self.places * (len(frames) // len(self.images)),
        )

    def without_masters(self) -> list[Step]:
        """Return a step for each frame that gives its variance without the masters that all share; none if they share none."""
        plans = [image.plan for image in self.images]
        # frames that are the same in all bits are taken for independent ones that happen to be
        shared = shared_by_all(plans) if len(set(plans)) > 1 else []
        masters = [step for step in shared if "variance" in step.dtypes]
        # after a division the two parts of a variance cannot be told apart: the plan runs once more, with exact masters
        exact: dict[str, Step] = {
            step.token: Apply(
                step.shape,
                step.planes,
                kernel=pointwise.without_variance,
                sources=(Input(step, uses=WITHOUT_VARIANCE),),
                params=make_params(dtype=step.dtypes["variance"].name),
            )
            for step in masters
        }
        return [_only_variance(rebuilt(plan, exact, {})) for plan in plans] if exact else []

    @property
    def footprint(self) -> Footprint:
        """The region of a frame that a region of the stack needs."""
        reach = self.rule.rejecting.reach
        if self.rule.whole_lines:
            return Lines((reach, reach))
        return Halo((reach, reach)) if reach else Same()

    def budget(self, frames: Sequence[Step]) -> int:
        """Return how many bytes the bands may take."""
        limit = LARGEST_STACK_BYTES
        if self.mem_limit is not None:
            if not self.mem_limit > 0:
                raise ParameterError(f"mem_limit {self.mem_limit} must be greater than 0 bytes.")
            limit = int(min(self.mem_limit, LARGEST_STACK_BYTES))
        if self.places:  # a chunk of a mosaic is made in one band if it fits
            return limit
        row = sum(sum(dtype.itemsize for _, dtype in step.planes) for step in frames) * self.images[0].shape[1]
        # in lower bands, most of what is read and cleaned would be margins, which the next band computes again
        halo = max(step.halo_rows for step in frames) + self.rule.rejecting.reach
        return max(1, min(limit, max(STACK_BYTES, 4 * BANDS_PER_HALO * halo * row, 2 * row)))

    def grid(self) -> Grid:
        """Return the chunks of the result."""
        first = self.images[0]
        if not self.places:
            return stack_grid(first.shape)
        images = [first, *self.weights[:1]]
        return mosaic_grid(first.shape, self.places, sum(t.itemsize for i in images for _, t in i.plan.planes))

    def result(self, header: StackHeader, maps: Sequence[str], *, rejections: bool) -> xr.Dataset:
        """Return the lazy result; raises as `image`."""
        image = self.image(header, maps)
        # readers that extended the plan would combine all frames again for each of their own chunks
        ds = image.to_dataset(boundary=True)
        return ds.assign(rejected=self._rejected(image)) if rejections else ds

    def image(self, header: StackHeader, maps: Sequence[str]) -> Image:
        """Return the image of the result.

        Raises
        ------
        ParameterError
            Raised if there is no map of a name.
        """
        known = [*STACK_MAPS, *([APERTURE] if self.places else [])]
        unknown = sorted(set(maps) - set(known))
        if unknown:
            raise ParameterError(f"maps {unknown} must be among {', '.join(known)}.")
        first = self.images[0]
        return replace(
            first,
            plan=self.step(maps),
            schema=self.schema,
            uncertainty_type=first.uncertainty_type if first.has_variance else "std",
            header=header.apply(first.header),
            grid=self.grid(),
            graphs=tuple(graph for each in (*self.images, *self.weights) for graph in each.graphs),
            # of the first frame, if that was a mosaic
            attrs={key: value for key, value in first.attrs.items() if key != CORRECTIONS},
        )

    def _rejected(self, image: Image) -> xr.DataArray:
        """Return which inputs are rejected, one plane per frame; 64 of them are found by one task per chunk."""
        import xarray as xr

        step = image.plan
        assert isinstance(step, Stack)
        planes = []
        # one task gives 64 frames as bits: a task for each frame would read all of them again
        for first in range(0, self.rule.count, BITS_PER_WORD):
            words = replace(
                step,
                planes=make_dtypes(data=np.uint64),
                kernel=rejection_words,
                uses=(("data", dict(step.uses)["mask"]),),
                params=make_params(rule=self.rule, word=first // BITS_PER_WORD),
                scalars=self.scalars,
                own_scalars=(),
            )
            array = lower_image(words, image.grid, {DATA: "data"}, image.graphs)[DATA]
            planes += [
                xr.DataArray((array >> np.uint64(bit)) & np.uint64(1) > 0, dims=("y", "x"))
                for bit in range(min(BITS_PER_WORD, self.rule.count - first))
            ]
        return xr.concat(planes, "frame").rename("rejected")


def without_own_flags(image: Image) -> Step:
    """Return a frame's plan without a mask that marks only pixels that are not finite: stacks look at that themselves."""
    plan = image.plan
    if not isinstance(plan, Join):
        return plan
    parts = {name: (step, plane) for name, step, plane in plan.parts}
    mask = parts["mask"][0] if "mask" in parts else None
    if not (isinstance(mask, Apply) and mask.kernel is pointwise.flag_nonfinite_alone):
        return plan
    return Join.of(**{**parts, "mask": None}) if mask.inputs == (parts["data"][0],) else plan


def _only_variance(step: Step) -> Step:
    """Return a step that gives nothing but the variance."""
    uses: PlaneMap = (("variance", ("variance",)),)
    return Apply(
        step.shape,
        make_dtypes(variance=step.dtypes["variance"]),
        kernel=pointwise.only_variance,
        sources=(Input(step, uses=uses),),
    )

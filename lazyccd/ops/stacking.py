"""From a rule and frames to the lazy stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.errors import ParameterError
from lazyccd.frame.core import DATA, Image, regular_grid
from lazyccd.frame.stack_header import StackHeader
from lazyccd.kernels import pointwise
from lazyccd.kernels.block import MAPS
from lazyccd.kernels.stack.clipping import WHOLE_LINES
from lazyccd.kernels.stack.combine import BITS_PER_WORD, METHODS, combine_frames, rejection_words
from lazyccd.kernels.stack.scaling import Levels
from lazyccd.kernels.stack.types import Rule
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.evaluate import BANDS_PER_HALO
from lazyccd.plan.footprints import Halo, Lines, PlaneMap, Reads, Same
from lazyccd.plan.lower import lower_image
from lazyccd.plan.schedule import vertical_halo
from lazyccd.plan.steps import Apply, Input, Join, Stack, Step, Value, make_dtypes, make_params, rebuilt, shared_by_all

CHUNK_PIXELS = 2**20
"""About how many pixels a chunk of a stack has: many frames are read for each."""

BUDGET_BYTES = 32 * 2**20
"""Bytes that the bands of all frames take in a task if that is enough; they stay in a core's share of the caches."""

LARGEST_BUDGET = 256 * 2**20
"""Bytes that they may take where rows are long, or bands must be high for the sake of halos."""

WITHOUT_VARIANCE: PlaneMap = (("data", ("data",)), ("mask", ("mask",)))
"""Each plane from the same plane; the variance from nothing."""

CLASSES = (("INTERP",), ("SAT",), ("CR", "LOW_FLAT"), (), ("NO_DATA",))
"""Planes from the least to the worst, for pixels of which all inputs are bad; the empty class holds all others."""


def plain_rule(images: Sequence[Image], schema: MaskSchema, method: str) -> Rule:
    """Return a rule without levels and rejections."""
    if method not in METHODS:
        raise ParameterError(f"method {method!r} must be one of {', '.join(METHODS)}.")
    named = schema.bits(*(name for group in CLASSES for name in group))
    ranks = [schema.bits(*group) if group else schema.bad_bits & ~named for group in CLASSES]
    dtype = np.result_type(*(image.dtype for image in images)).name
    return Rule(
        method,
        len(images),
        has_pixel_weights=False,
        shares_masters=False,
        levels=Levels(),
        clips=(),
        reject=None,
        nkeep=1,
        grow=0.0,
        noise=None,
        flavor="ccdproc",
        about_median=True,
        ncombine=(1,) * len(images),
        exposures=(),
        uncertainty="scatter",
        work=dtype,
        dtype=dtype,
        mask_dtype=schema.dtype.name,
        remaps=tuple(image.schema.remap(schema) if image.has_mask else None for image in images),
        bad=schema.bad_bits,
        ranks=tuple(bits & (schema.bad_bits | schema.bits("NO_DATA")) for bits in ranks),
        saturated=schema.bits("SAT") & schema.bad_bits,
        clipped=schema.bits("CLIPPED"),
        no_data=schema.bits("NO_DATA"),
    )


@dataclass(frozen=True)
class Stacking:
    """Frames in one place and unit, and how they are combined."""

    images: tuple[Image, ...]
    schema: MaskSchema
    rule: Rule
    numbers: tuple[tuple[str, Value], ...]
    weights: tuple[Image, ...]
    """Weights of pixels, one per frame, or none."""

    mem_limit: float | None = None
    dtype: npt.DTypeLike | None = None

    def step(self, maps: Sequence[str] = ()) -> Stack:
        """Return the step that combines the frames."""
        dtype = self.rule.dtype if self.dtype is None else np.dtype(self.dtype).name
        planes = make_dtypes(
            data=dtype,
            variance=dtype,
            mask=self.rule.mask_dtype,
            **{name: kind for name, kind in MAPS.items() if name in maps},
        )
        own = self.without_masters() if self.rule.uncertainty == "propagated" else []
        rule = replace(self.rule, dtype=dtype, has_pixel_weights=bool(self.weights), shares_masters=bool(own))
        needs = ["data", "mask", *(["variance"] if rule.reject is not None and rule.reject[0] == "varclip" else [])]
        spread = [*needs, *(["variance"] if rule.uncertainty == "propagated" else [])]
        uses: PlaneMap = tuple((name, tuple(spread if name == "variance" else needs)) for name, _ in planes)
        frames = (*map(_without_own_flags, self.images), *(image.plan for image in self.weights), *own)
        return Stack(
            self.images[0].shape,
            planes,
            kernel=combine_frames,
            frames=frames,
            uses=uses,
            params=make_params(rule=rule),
            numbers=self.numbers,
            reads=self.reads,
            scratch_bytes=2 * rule.count if rule.grow >= 1 else 0,
            budget_bytes=self.budget(frames),
        )

    def without_masters(self) -> list[Step]:
        """Return a step for each frame that gives its variance without the masters that all share; none if they share none."""
        plans = [image.plan for image in self.images]
        # frames that are the same in all bits are taken for independent ones that happen to be
        shared = shared_by_all(plans) if len(set(plans)) > 1 else []
        masters = [step for step in shared if "variance" in step.dtypes]
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
    def reads(self) -> Reads:
        """Which region of a frame a region of the stack needs."""
        reach = int(self.rule.grow)
        whole = self.rule.reject is not None and self.rule.reject[0] in WHOLE_LINES
        if whole or self.rule.flavor == "iraf":
            return Lines((reach, reach))
        return Halo((reach, reach)) if reach else Same()

    def budget(self, frames: Sequence[Step]) -> int:
        """Return how many bytes the bands may take."""
        limit = LARGEST_BUDGET
        if self.mem_limit is not None:
            if not self.mem_limit > 0:
                raise ParameterError(f"mem_limit {self.mem_limit} must be greater than 0 bytes.")
            limit = int(min(self.mem_limit, LARGEST_BUDGET))
        row = sum(sum(dtype.itemsize for _, dtype in step.planes) for step in frames) * self.images[0].shape[1]
        halo = max(vertical_halo(step) for step in frames) + int(self.rule.grow)
        return max(1, min(limit, max(BUDGET_BYTES, 4 * BANDS_PER_HALO * halo * row, 2 * row)))

    def result(self, header: StackHeader, maps: Sequence[str], *, rejections: bool) -> xr.Dataset:
        """Return the lazy result.

        Raises
        ------
        ParameterError
            Raised if there is no map of a name.
        """
        unknown = sorted(set(maps) - set(MAPS))
        if unknown:
            raise ParameterError(f"maps {unknown} must be among {', '.join(MAPS)}.")
        first = self.images[0]
        rows = max(1, CHUNK_PIXELS // first.shape[1])
        image = replace(
            first,
            plan=self.step(maps),
            schema=self.schema,
            uncertainty_type=first.uncertainty_type if first.has_variance else "std",
            header=header.apply(first.header),
            grid=regular_grid(first.shape, (rows, first.shape[1])),
            graphs=tuple(graph for each in (*self.images, *self.weights) for graph in each.graphs),
        )
        ds = image.to_dataset(boundary=True)
        return ds.assign(rejected=self._rejected(image)) if rejections else ds

    def _rejected(self, image: Image) -> xr.DataArray:
        """Return which inputs are rejected, one plane per frame; 64 of them are found by one task per chunk."""
        step = image.plan
        assert isinstance(step, Stack)
        planes = []
        for first in range(0, self.rule.count, BITS_PER_WORD):
            words = replace(
                step,
                planes=make_dtypes(data=np.uint64),
                kernel=rejection_words,
                uses=(("data", dict(step.uses)["mask"]),),
                params=make_params(rule=self.rule, word=first // BITS_PER_WORD),
            )
            array = lower_image(words, image.grid, {DATA: "data"}, image.graphs)[DATA]
            planes += [
                xr.DataArray((array >> np.uint64(bit)) & np.uint64(1) > 0, dims=("y", "x"))
                for bit in range(min(BITS_PER_WORD, self.rule.count - first))
            ]
        return xr.concat(planes, "frame").rename("rejected")


def _without_own_flags(image: Image) -> Step:
    """Return a frame's plan, without a mask that says only where its data are not finite: stacks look at that themselves."""
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

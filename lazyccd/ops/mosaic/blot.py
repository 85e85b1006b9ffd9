"""Outliers of the frames of a mosaic, found on each frame's own pixels by the median of all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lazyccd.errors import ParameterError
from lazyccd.frame.core import MASK, Image
from lazyccd.kernels.blot import REACH, flag_outliers
from lazyccd.kernels.stack.scaling import Levels
from lazyccd.ops.mosaic.placed import Placed
from lazyccd.ops.mosaic.reference import FrameScale, reference, scale_of_frames
from lazyccd.ops.mosaic.sky import without_sky
from lazyccd.ops.mosaic.warp import SkyGrid, warped
from lazyccd.ops.stack.inputs import Given
from lazyccd.ops.stack.scaling import sampled_statistic
from lazyccd.plan.footprints import Halo
from lazyccd.plan.steps import Apply, Input, Join, Scalar, make_dtypes, make_params


@dataclass(frozen=True)
class Blotted:
    """Reject pixels of frames that are off the median of all frames, for ``reject=`` of `lazyccd.coadd`; as drizzlepac does.

    The median mosaic is resampled back onto each frame, and a pixel is rejected where it is off by ``snr`` standard deviations and
    ``scale`` of the slope of the median, the largest difference from one of four neighbours: the first limits find outliers, the
    second ones, which are lower, their neighbours. What is found is ``CR`` in the mask of the frame, before it is resampled, so that
    a cosmic ray takes no more pixels of the mosaic than the kernel must. Each frame is read for its sky, for the median, and for the
    mosaic: write frames with expensive steps before (Fruchter and Hook 2002, PASP 114, 144).
    """

    snr: tuple[float, float] = (5.0, 4.0)
    """Standard deviations; those of the sky for frames without uncertainties."""

    scale: tuple[float, float] = (1.2, 0.7)
    """Parts of the slope."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for what in ("snr", "scale"):
            numbers = getattr(self, what)
            if len(numbers) != 2 or not all(0 <= number < float("inf") for number in numbers):
                raise ParameterError(f"{what} {numbers!r} of Blotted must be two numbers that are not below 0.")


def without_outliers(
    rule: Blotted, given: Given, placed: Placed, levels: Levels, scalars: Sequence[tuple[str, Scalar]], *, measure: bool
) -> list[Image]:
    """Return frames with outliers in their masks.

    Parameters
    ----------
    rule
        What an outlier is.
    given
        The frames.
    placed
        Where they lie.
    levels, scalars
        The scales that they state.
    measure
        Whether scales are measured in the overlaps, from the frames as they are.
    """
    # skies that differ would be outliers
    flat = [without_sky(image, "constant", 128) for image in given.images]
    scale = scale_of_frames(given, placed, levels, scalars, measure=measure)
    mosaic = reference(flat, placed, scale, "median")
    return [
        _flagged(image, one, mosaic, placed, number, rule, scale)
        for number, (image, one) in enumerate(zip(given.images, flat, strict=True))
    ]


def _flagged(
    image: Image, flat: Image, mosaic: Image, placed: Placed, number: int, rule: Blotted, scale: FrameScale
) -> Image:
    """Return a frame with its outliers in the mask."""
    schema = image.schema
    blot = warped(mosaic, placed.grid.wcs, SkyGrid(placed.sources[number], image.shape, "bilinear"), for_stack=True)
    uses = (("mask", ("data", "variance", "mask")),)
    mask = Apply(
        image.shape,
        make_dtypes(mask=schema.dtype),
        kernel=flag_outliers,
        sources=(
            Input(flat.plan, Halo((REACH, REACH)), uses),
            Input(blot.plan, Halo((2 * REACH, 2 * REACH)), uses),
        ),
        params=make_params(
            snr=rule.snr,
            scale=rule.scale,
            levels=scale.levels,
            frame=number,
            bit=schema.bits("CR"),
            mask_dtype=schema.dtype.name,
        ),
        scalars=(("sky", sampled_statistic(image, "sky")), *scale.all_scalars),
    )
    parts = {name: (image.plan, name) for name, _ in image.plan.planes if name != MASK}
    return replace(image, plan=Join.of(**parts, mask=(mask, MASK)), graphs=(*image.graphs, *mosaic.graphs))

"""What all frames of a mosaic have in common, to compare each of them with on its own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lazyccd.frame.core import Image
from lazyccd.kernels.stack.scaling import Levels
from lazyccd.kernels.stack.statistics import sky_as_image
from lazyccd.kernels.stack.types import Rejecting
from lazyccd.ops.mosaic.overlaps import Corrections
from lazyccd.ops.mosaic.placed import Placed
from lazyccd.ops.stack.combine import StackPlan, plain_rule
from lazyccd.ops.stack.inputs import Given
from lazyccd.ops.stack.scaling import sampled_statistic
from lazyccd.plan.lower import merged
from lazyccd.plan.steps import Apply, Scalar, Scalars, Step, make_dtypes, make_params


class FrameScale(NamedTuple):
    """How bright frames are beside each other."""

    levels: Levels
    scalars: tuple[tuple[str, Scalar], ...]
    """Those that the levels name."""

    found: Corrections | None
    """What overlaps say of them."""

    @property
    def all_scalars(self) -> Scalars:
        """What a kernel gets of them by name."""
        return (*self.scalars, *(() if self.found is None else (("corrections", self.found.scalar),)))


def scale_of_frames(
    given: Given, placed: Placed, levels: Levels, scalars: Sequence[tuple[str, Scalar]], *, measure: bool
) -> FrameScale:
    """Return how bright frames are beside each other, without weights.

    Parameters
    ----------
    given, placed
        The frames, and where they lie.
    levels, scalars
        The scales that they state.
    measure
        Whether scales are measured in the overlaps, from the frames as they are.
    """
    named = tuple((name, scalar) for name, scalar in scalars if name in levels.scale)
    levels = replace(levels, weights=(), weights_are_variances=False, weights_are_exposures=False)
    found = placed.corrections(given, levels, named, None, measure=True) if measure else None
    return FrameScale(levels, named, found)


def reference(
    images: Sequence[Image],
    placed: Placed,
    scale: FrameScale,
    method: str,
    *,
    rejecting: Rejecting | None = None,
    skies: tuple[Step, ...] = (),
) -> Image:
    """Return the data of a stack of frames on the grid, which each task makes of what it needs.

    Chunks of its own would be held until all their readers are done, and a scheduler may make all of them first: as large as the
    mosaic, which no memory holds. Only the margin of each chunk of the mosaic is combined twice.

    Parameters
    ----------
    images
        The frames.
    placed
        Where they lie on the grid.
    scale
        How bright they are beside each other.
    method
        How they are combined.
    rejecting
        What is rejected; nothing if None.
    skies
        Those of the frames, if a rejection needs them; see `skies_of`.
    """
    on_grid = placed.warp(images)
    if scale.found is not None:
        on_grid = scale.found.applied(on_grid)
    first = on_grid[0]
    rule = replace(plain_rule(on_grid, first.schema, method), levels=scale.levels, rejecting=rejecting or Rejecting())
    plan = StackPlan(tuple(on_grid), first.schema, rule, scale.scalars, (), skies=skies, places=placed.places)
    step = plan.step()
    data = replace(step, planes=make_dtypes(data=step.dtypes["data"]))
    return replace(
        first, plan=data, grid=plan.grid(), graphs=merged(graph for each in on_grid for graph in each.graphs)
    )


def skies_of(images: Sequence[Image], shape: tuple[int, int]) -> tuple[Step, ...]:
    """Return images of the sky of each frame, then of its variance, for a stack of a shape."""
    # steps of the frames and not of the stack, so that a cut-out does not wait for those of others
    return tuple(
        Apply(
            shape,
            make_dtypes(data=np.float64),
            kernel=sky_as_image,
            sources=(),
            params=make_params(power=power),
            scalars=(("sky", sampled_statistic(image, "sky")),),
        )
        for power in (1, 2)
        for image in images
    )

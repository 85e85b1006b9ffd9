"""Where the frames of a mosaic lie on its grid, and how they are brought onto it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lazyccd.errors import ArgumentTypeError, ParameterError, warn
from lazyccd.frame.core import Image
from lazyccd.frame.sky_footprint import frame_place
from lazyccd.kernels.stack.scaling import Levels
from lazyccd.ops.mosaic.grid import PlacedFrame
from lazyccd.ops.mosaic.matching import Match
from lazyccd.ops.mosaic.overlaps import Corrections, corrections_of, overlaps_of
from lazyccd.ops.mosaic.warp import SkyGrid, celestial_wcs, warped
from lazyccd.ops.stack.combine import without_own_flags
from lazyccd.ops.stack.inputs import Given
from lazyccd.plan.steps import Scalar
from lazyccd.sections import Region


class OffGridWarning(UserWarning):
    """Frames that do not lie on the grid are left out of a mosaic."""


@dataclass(frozen=True)
class Placed:
    """A grid of the sky, and where frames lie on it."""

    grid: SkyGrid
    """The grid."""

    sources: tuple[Any, ...]
    """The WCS of each frame."""

    places: tuple[Region, ...]
    """The part of the grid outside of which the frame has no pixel."""

    missing: tuple[str, ...] = ()
    """Names of frames that lie elsewhere."""

    def warp(self, images: Sequence[Image], kernel: str | None = None, *, aperture: bool = False) -> list[Image]:
        """Return images of the frames on the grid; none for none."""
        return [
            warped(
                replace(image, plan=without_own_flags(image)),
                source,
                self.grid,
                kernel,
                for_stack=True,
                aperture=aperture,
            )
            for image, source in zip(images, self.sources, strict=False)
        ]

    def corrections(
        self, given: Given, levels: Levels, scalars: Sequence[tuple[str, Scalar]], match: Match | None, *, measure: bool
    ) -> Corrections:
        """Return what the overlaps of the frames say.

        Parameters
        ----------
        given
            The frames.
        levels, scalars
            The scales that they state.
        match
            How their sky is matched.
        measure
            Whether their scales are measured.
        """
        if not hasattr(self.grid.wcs, "wcs"):
            raise ArgumentTypeError("match and flux_scale='overlaps' need a grid whose WCS is an astropy.wcs.WCS.")
        overlaps = overlaps_of(self.places, given, levels, match, measure=measure)
        found = corrections_of(given.images, self.sources, self.grid.frozen, self.grid.shape, overlaps, scalars)
        return Corrections(overlaps, found)


def on_grid(given: Given, grid: SkyGrid) -> tuple[Given, Placed]:
    """Return the frames that lie on a grid, and where.

    Raises
    ------
    ParameterError
        Raised if none does.
    """
    sources = [celestial_wcs(image, label) for image, label in zip(given.images, given.labels, strict=True)]
    places = [
        frame_place(source, image.shape, grid.frozen, grid.shape)
        for source, image in zip(sources, given.images, strict=True)
    ]
    here = [i for i, place in enumerate(places) if place.size]
    if not here:
        middles = [
            PlacedFrame(wcs, shape, label).middle
            for wcs, shape, label in (
                (grid.wcs, grid.shape, "the grid"),
                (sources[0], given.images[0].shape, given.labels[0]),
            )
            if hasattr(wcs, "wcs")
        ]
        raise ParameterError(
            f"none of the {len(places)} frames lies on the grid of {grid.shape[0]} x {grid.shape[1]} pixels ({', '.join(middles)}); "
            "look at CRVAL and CDELT of both, or leave out wcs= for a grid that holds the frames."
        )
    missing = [label for i, label in enumerate(given.labels) if not places[i].size]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        warn(
            f"{len(missing)} of {len(places)} frames do not lie on the grid and are left out: {shown}.", OffGridWarning
        )
    left = replace(
        given,
        images=[given.images[i] for i in here],
        labels=[given.labels[i] for i in here],
        names=[given.names[i] for i in here],
    )
    return left, Placed(grid, tuple(sources[i] for i in here), tuple(places[i] for i in here), tuple(missing))

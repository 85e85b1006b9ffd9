"""``ds.ccd`` and ``tree.ccd``: what a frame or tree knows about itself, and every operation as a method.

This is a face: it calls operations, and nothing below the faces calls it. A function that a test or a module needs is in
`lazyccd.ops` or `lazyccd.frame`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd import io, ops
from lazyccd.errors import ArgumentTypeError, FrameError, ParameterError, SectionError
from lazyccd.frame.ccddata import to_ccddata
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.header import header_view
from lazyccd.frame.header_in_memory import header_in_memory
from lazyccd.frame.tree import frames_of, over_trees
from lazyccd.frame.wcs import image_wcs
from lazyccd.mosaic_inputs import frames_at, stamps
from lazyccd.ops.attributes import cut
from lazyccd.ops.instrument.trim import cut_section
from lazyccd.pixel_history import explain, index_of, near, stack_image
from lazyccd.plan_report import PlanReport, plan_report
from lazyccd.sections import Region

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCS
    from matplotlib.axes import Axes

Position: TypeAlias = "SkyCoord | None"
Size: TypeAlias = "u.Quantity | tuple[u.Quantity, u.Quantity] | int | tuple[int, int] | None"
"""Height and width, as angles or pixels; one number for both."""

T = TypeVar("T")
EachFrame: TypeAlias = "T | Mapping[str, T]"
"""An argument that is the same for all frames of a tree, or a mapping that has one for each."""


class CCDAccessor:
    """What a frame knows about itself, and operations as methods.

    Everything is read anew at each use, nothing is cached: a Dataset whose attributes change is another frame at once.

    Parameters
    ----------
    ds
        A frame.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> ds = from_ccddata(CCDData(np.ones((4, 6)), unit="adu", meta={"GAIN": 1.5}))
    >>> ds.ccd.header["GAIN"], ds.ccd.unit, ds.ccd.cutout(y=slice(1, 3)).sizes["y"]
    (1.5, Unit("adu"), 2)
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
    def _image(self) -> Image:
        return resolve(self._ds)

    @property
    def header(self) -> Any:
        """The header, as a mapping that cannot be written to; `lazyccd.with_header` returns a frame with other cards.

        NAXIS and BUNIT are those of the frame. Cards about places, such as CRPIX, are those of the image that was read,
        and follow when the frame is written; `wcs` has followed already. ``attrs["header"]`` is the header as it was read.
        """
        image = self._image
        return header_view(header_in_memory(image.header, image.shape, image.units))

    @property
    def wcs(self) -> WCS | None:
        """The header's WCS, carried along with what was cut; None if there is no celestial one.

        Distortions that are tables in other HDUs are read from the frame's file; a ``FrameError`` is raised if it has none, or if a
        number of the WCS is a text in the header.
        """
        return image_wcs(self._image)

    @property
    def unit(self) -> u.UnitBase:
        """Unit of the data."""
        return self._image.units

    @property
    def bad(self) -> xr.DataArray:
        """Lazy booleans: True where a plane is set that counts as bad, or everywhere False if there is no mask."""
        return ops.is_flagged(self._ds)

    def plan(self) -> PlanReport:
        """Return what computing the frame costs: steps, tasks, bytes, memory, pending scalars."""
        return plan_report(self._ds)

    def cutout(
        self,
        position: Position | str = None,
        size: Size = None,
        *,
        y: slice | None = None,
        x: slice | None = None,
    ) -> xr.Dataset:
        """Return a part of the frame that pulls only its own region through the plan.

        Parameters
        ----------
        position
            Centre on the sky; needs ``size`` and a WCS. Or a section of this frame as FITS writes it, such as ``"[11:,1:60]"``.
        size
            Height and width, as angles or pixels; one number for both.
        y, x
            0-based, half-open ranges of pixels of this frame, instead of a position.

        Returns
        -------
        xr.Dataset
            Lazy. A cut-out around a position is cut at the edge of the image.

        Raises
        ------
        SectionError
            Raised if the part is empty or outside of the image, or the position is.
        ParameterError
            Raised if position and ranges are given together, or a size is missing.
        FrameError
            Raised if there is a position and no WCS.
        """
        # of a stack, only what lies in the part is combined; through its chunks, whole ones would be
        stack = stack_image(self._ds)
        image = resolve(self._ds, maps=True) if stack is None else stack
        if isinstance(position, str):
            if y is not None or x is not None or size is not None:
                raise ParameterError(f"cutout() got the section {position!r} and other ranges; give one or the other.")
            return _alone(cut_section(image, position), stack)
        if position is not None:
            _check_position(position)
            if y is not None or x is not None or size is None:
                raise ParameterError(
                    "cutout() needs a position and a size, or ranges y= and x=; give one or the other."
                )
            y, x = self._sky_ranges(position, size, image.shape)
        elif size is not None:
            raise ParameterError(f"cutout() got the size {size} and no position; give a SkyCoord, or ranges y= and x=.")
        return _alone(cut(image, y or slice(None), x or slice(None)), stack)

    def _sky_ranges(self, position: SkyCoord, size: Size, shape: tuple[int, int]) -> tuple[slice, slice]:
        from astropy.wcs.utils import skycoord_to_pixel

        wcs = self.wcs
        if wcs is None:
            raise FrameError("cutout() by sky position needs a celestial WCS and the header has none; give y= and x=.")
        column, row = skycoord_to_pixel(position, wcs)
        if not np.isfinite([column, row]).all():
            raise SectionError(
                f"cutout() at {position.to_string('hmsdms')} is not on the sky of this image; check the position."
            )
        sizes = size if isinstance(size, tuple) else (size, size)
        scale = np.sqrt(wcs.proj_plane_pixel_area().to_value(u.deg**2))
        ranges = []
        for centre, extent, length in zip((float(row), float(column)), sizes, shape, strict=True):
            pixels = extent.to_value(u.deg) / scale if isinstance(extent, u.Quantity) else float(extent)
            start = round(centre - pixels / 2 + 0.5)
            ranges.append(slice(max(start, 0), min(start + max(round(pixels), 1), length)))
        return ranges[0], ranges[1]

    def pixel(self, y: float, x: float) -> xr.Dataset:
        """Return the one pixel at original coordinates: a frame with scalar variables, still lazy.

        Raises
        ------
        SectionError
            Raised if the frame does not hold the pixel.
        """
        rows, columns = index_of(self._ds, y, x)
        return (
            cut(resolve(self._ds, maps=True), slice(rows, rows + 1), slice(columns, columns + 1))
            .to_dataset()
            .isel(y=0, x=0)
        )

    def explain(self, y: float, x: float) -> Any:
        """Return a table of what became of the pixel at original coordinates; see `lazyccd.explain`."""
        return explain(self._ds, y, x)

    def frames_at(self, position: SkyCoord | tuple[float, float]) -> Any:
        """Return a table of the frames that lie on a place of a mosaic; see `lazyccd.frames_at`."""
        return frames_at(self._ds, position)

    def stamps(self, position: SkyCoord | tuple[float, float], size: int | tuple[int, int]) -> xr.Dataset:
        """Return what each frame shows of a place of a mosaic, dims (frame, y, x); see `lazyccd.stamps`."""
        return stamps(self._ds, position, size)

    def show(
        self,
        stretch: str = "asinh",
        interval: str = "zscale",
        planes: bool | str | Sequence[str] = True,
        ax: Axes | None = None,
        *,
        variable: str = "data",
        vmin: float | None = None,
        vmax: float | None = None,
        cmap: str = "gray",
        title: str = "",
        sky: bool = False,
        size: int | None = 1100,
    ) -> Axes:
        """Draw the frame, mask planes in colour; see `lazyccd.plot.show`."""
        from lazyccd.plot import show  # matplotlib takes as long to import as everything else together

        return show(
            self._ds,
            stretch,
            interval,
            planes,
            ax,
            variable=variable,
            vmin=vmin,
            vmax=vmax,
            cmap=cmap,
            title=title,
            sky=sky,
            size=size,
        )

    def to_ccddata(self) -> Any:
        """Return the frame as a CCDData, computed."""
        return to_ccddata(self._ds)


class CCDTreeAccessor:
    """What the frames of a tree know, such as an exposure of several detectors or amplifiers, and operations as methods.

    Parameters
    ----------
    tree
        A tree of frames.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> frame = from_ccddata(CCDData(np.ones((4, 6)), unit="adu"))
    >>> tree = xr.DataTree.from_dict({"left": frame, "right": frame})
    >>> float(tree.ccd.multiply({"left": 1, "right": 3})["right"]["data"].max())
    3.0
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    @property
    def frames(self) -> dict[str, xr.Dataset]:
        """The frames by name."""
        return frames_of(self._tree)

    @property
    def header(self) -> Any:
        """The header of the root, that of a file's primary HDU, as a mapping that cannot be written to."""
        return header_view(str(self._tree.attrs.get("header", "")))

    @property
    def bad(self) -> xr.DataTree:
        """Lazy booleans for each frame, as `CCDAccessor.bad`."""
        return ops.is_flagged(self._tree)

    @property
    def wcs(self) -> dict[str, WCS | None]:
        """The WCS of each frame by name, as `CCDAccessor.wcs`."""
        return {name: frame.ccd.wcs for name, frame in self.frames.items()}

    @property
    def unit(self) -> dict[str, u.UnitBase]:
        """Unit of the data of each frame by name."""
        return {name: frame.ccd.unit for name, frame in self.frames.items()}

    def cutout(
        self,
        position: EachFrame[Position | str] = None,
        size: EachFrame[Size] = None,
        *,
        y: EachFrame[slice | None] = None,
        x: EachFrame[slice | None] = None,
    ) -> xr.DataTree:
        """Return the same part of each frame, or with mappings by name a part of each, as `CCDAccessor.cutout`."""
        return over_trees(_cutout)(self._tree, position, size, y, x)

    def pixel(self, y: EachFrame[float], x: EachFrame[float]) -> xr.DataTree:
        """Return a pixel of each frame at original coordinates, the same or with mappings by name, as `CCDAccessor.pixel`."""
        return over_trees(_pixel)(self._tree, y, x)

    def plan(self) -> dict[str, PlanReport]:
        """Return what computing each frame costs."""
        return {name: frame.ccd.plan() for name, frame in self.frames.items()}

    def explain(self, y: EachFrame[float], x: EachFrame[float]) -> dict[str, Any]:
        """Return for each frame a table of what became of a pixel; see `lazyccd.explain`."""
        return explain(self._tree, y, x)

    def show(self, title: str = "", **how: Any) -> dict[str, Axes]:
        """Draw all frames, each by itself; see `lazyccd.plot.show_tree`."""
        from lazyccd.plot import show_tree

        return show_tree(self._tree, title, **how)

    def to_ccddata(self) -> dict[str, Any]:
        """Return each frame by name as a CCDData, computed."""
        return to_ccddata(self._tree)


def _alone(part: Image, stack: Image | None) -> xr.Dataset:
    """Return a part of a frame; of a stack, it is combined by itself."""
    if stack is None:
        return part.to_dataset()
    # a stack as it came has its pixels at 0, 1, 2 ...
    (y0, y1), (x0, x1) = ((int(v[0]), int(v[-1]) + 1) for v in (part.y, part.x))
    alone = cut(near(stack, Region(y0, y1, x0, x1), frame_by_frame=False), slice(y0, y1), slice(x0, x1))
    return alone.to_dataset(boundary=True)


def _check_position(position: object) -> None:
    """Refuse a position that is none on the sky."""
    from astropy.coordinates import SkyCoord

    if not isinstance(position, SkyCoord):
        raise ArgumentTypeError(
            f"cutout() got the position {position!r} and needs a SkyCoord; ranges of pixels are y=slice(y0, y1), x=slice(x0, x1)."
        )
    if not position.isscalar:
        raise ParameterError(f"cutout() got {position.size} positions and needs one; cut the parts one by one.")


def _cutout(frame: xr.Dataset, position: Position | str, size: Size, y: slice | None, x: slice | None) -> xr.Dataset:
    return CCDAccessor(frame).cutout(position, size, y=y, x=x)


def _pixel(frame: xr.Dataset, y: float, x: float) -> xr.Dataset:
    return CCDAccessor(frame).pixel(y, x)


NOT_METHODS = {
    "aperture_factor",
    "Combiner",
    "RunningStack",
    "bitfield_to_boolean_mask",
    "coadd",
    "mosaic_corrections",
    "combine",
    "find_optimal_grid",
    "register",
    "sky_cells",
}
"""What takes something else than a frame or tree first."""

OF_TREES = {"assemble", "correct_crosstalk"}
"""What takes a tree, and no frame."""


def _add_method(cls: type, held: str, function: Callable[..., Any]) -> None:
    """Make a function of a frame or tree a method of an accessor, with the function's own signature and docstring."""

    # wraps() leaves the function behind as __wrapped__: `inspect` takes the signature from there and drops the parameter that
    # self stands for, and doctest, which goes by __module__, runs the examples once, where the function is
    @functools.wraps(function)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(getattr(self, held), *args, **kwargs)

    method.__qualname__ = f"{cls.__name__}.{function.__name__}"
    setattr(cls, function.__name__, method)


for _name in (*ops.__all__, "to_fits", "to_zarr"):
    if _name not in NOT_METHODS:
        _function = getattr(ops if _name in ops.__all__ else io, _name)
        if _name not in OF_TREES:
            _add_method(CCDAccessor, "_ds", _function)
        _add_method(CCDTreeAccessor, "_tree", _function)

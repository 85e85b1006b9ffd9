"""Small pieces of plans for tests: storage without files, and a neighbourhood operation that is slow and obvious.

They stand in a module that worker processes can import, so plans that hold them run under every scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u

from lazyccd.frame.core import Image, make_image, resolve
from lazyccd.frame.tree import make_tree
from lazyccd.kernels.block import Array, Block, Request
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.chunks import Grid, regular_grid
from lazyccd.plan.footprints import Halo
from lazyccd.plan.steps import Apply, Input, Source, make_params
from lazyccd.plan.storage import StoredRows
from lazyccd.sections import Region

# a global, since storages are frozen parts of a plan and its token: a list in them would change with each read
READS: list[tuple[str, Region]] = []
"""Name and region of every read of a `FormulaStorage` in this process; tests clear and look at it."""


@dataclass(frozen=True)
class FormulaStorage:
    """An image whose pixels are a hash of their place: any size, no file.

    Unsigned dtypes give masks with single bits here and there.
    """

    shape: tuple[int, int]
    """Rows and columns."""

    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009 - dtypes do not change
    """What reads return."""

    seed: int = 0
    """Another number gives other pixels."""

    low: float = 0.0
    """Smallest value."""

    high: float = 1000.0
    """Largest value."""

    holes: int = 0
    """About one in so many pixels is NaN; 0 for none."""

    chunks: tuple[int, int] = (64, 64)
    """Preferred chunk shape."""

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"formula {self.seed}"

    @property
    def place(self) -> str:
        """Its name: there is no file."""
        return self.name

    @property
    def identity(self) -> str:
        """What the pixels follow from."""
        return self.token

    @property
    def token(self) -> str:
        """Identity."""
        # chunks are left out: they are how pixels are read, not which
        return repr((self.shape, self.dtype.str, self.seed, self.low, self.high, self.holes))

    def open(self) -> FormulaStorage:
        """Return itself: it is its own reader."""
        return self

    def close(self) -> None:
        """Do nothing."""

    @property
    def rows(self) -> int:
        """How many rows are decoded together."""
        return 1

    @property
    def unpacked_bytes(self) -> int:
        """Bytes that are unpacked for any region: none."""
        return 0

    def stored_rows(self) -> StoredRows | None:
        """Return None: there is nothing to decode."""
        return None

    def read(self, region: Region) -> Array:
        """Return the pixels of a region and note that it was read."""
        READS.append((self.name, region))
        # a spatial hash with the primes of Teschner et al. (2003): pixels of any region without those before it
        y, x = np.ogrid[region.y0 : region.y1, region.x0 : region.x1]
        mixed = (y * 73856093) ^ (x * 19349663) ^ (self.seed * 83492791)
        number = (mixed ^ (mixed >> 13)) * 1274126177 >> 7 & 0xFFFFF
        if self.dtype.kind == "u":
            return np.where(number % 17 == 0, 1 << number // 17 % 8, 0).astype(self.dtype)
        values = (self.low + (self.high - self.low) * (number / 0xFFFFF)).astype(self.dtype)
        return np.asarray(np.where(number % self.holes == 0, self.dtype.type(np.nan), values) if self.holes else values)


def formula_frame(
    shape: tuple[int, int],
    chunks: tuple[int, int] | Grid | None = None,
    *,
    seed: int = 0,
    dtype: npt.DTypeLike = np.float32,
    low: float = 0.0,
    high: float = 1000.0,
    holes: int = 0,
    uncertainty: bool = True,
    mask: bool = True,
    units: u.UnitBase = u.adu,
    header: str = "",
) -> xr.Dataset:
    """Return a lazy frame of `FormulaStorage` planes.

    Parameters
    ----------
    shape
        Rows and columns.
    chunks
        Shape of chunks, or their sizes along both axes; one chunk by default.
    seed, dtype, low, high, holes
        Of the data; see `FormulaStorage`.
    uncertainty, mask
        Whether there is one.
    units, header
        Of the frame.
    """
    dtype = np.dtype(dtype)
    data = Source.of(FormulaStorage(shape, dtype, seed, low, high, holes))
    # never near 0: weights by the variance would go to infinity
    variance = Source.of(FormulaStorage(shape, dtype, seed + 1000, 1.0, 9.0)) if uncertainty else None
    bits = Source.of(FormulaStorage(shape, MaskSchema().dtype, seed + 2000)) if mask else None
    given: Any = shape if chunks is None else chunks
    grid: Grid = regular_grid(shape, given) if isinstance(given[0], int) else given
    return make_image(data, units=units, grid=grid, variance=variance, mask=bits, header=header).to_dataset()


def formula_tree(count: int = 2, **more: Any) -> xr.DataTree:
    """Return an exposure of a few frames, CCD0, CCD1, ..., that have `formula_frame`'s arguments in common."""
    return make_tree({f"CCD{i}": formula_frame((8, 9 + i), (4, 9), seed=i, **more) for i in range(count)}, {})


def box_halo(radius: int) -> tuple[int, int]:
    """Return the halo of `box_sum` along y and x."""
    return radius, radius


def box_sum(request: Request, a: Block, *, radius: int) -> Block:
    """Sum data and variance over a square around each pixel, cut by the edge of the image, and join the masks."""
    # the plan cuts a halo at the edge of the image, so that is where zeros are missing
    grown = request.region.grow(*box_halo(radius))
    pad = (
        (a.region.y0 - grown.y0, grown.y1 - a.region.y1),
        (a.region.x0 - grown.x0, grown.x1 - a.region.x1),
    )
    planes: dict[str, Array] = {}
    for name in request.planes:
        padded = np.pad(a.plane(name), pad)
        total: Array = np.zeros(request.region.shape, padded.dtype)
        for dy in range(2 * radius + 1):
            for dx in range(2 * radius + 1):
                part = padded[dy : dy + total.shape[0], dx : dx + total.shape[1]]
                total = total | part if name == "mask" else total + part
        planes[name] = total
    return Block(request.region, **planes)


def box_step(image: Image, radius: int) -> Apply:
    """Return the step of `box_sum` on an image."""
    return Apply(
        image.shape,
        image.plan.planes,
        kernel=box_sum,
        sources=(Input(image.plan, Halo(box_halo(radius))),),
        params=make_params(radius=radius),
    )


def box_filter(ds: xr.Dataset, radius: int) -> xr.Dataset:
    """Return a frame summed over squares: a neighbourhood operation with a known halo.

    Parameters
    ----------
    ds
        A frame.
    radius
        The square has ``2 * radius + 1`` pixels on a side.
    """
    image = resolve(ds)
    return replace(image, plan=box_step(image, radius)).to_dataset()

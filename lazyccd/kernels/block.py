"""What kernels take and return: blocks of pixels that know their place in the image, and requests for them."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.sections import Region

Array: TypeAlias = npt.NDArray[Any]
"""Pixels of any dtype; everything but the kernels that need a narrower type imports it from here."""

BITWISE_OR: Any = np.bitwise_or
"""The ufunc without a type: what the stubs of its methods accept differs between versions of NumPy."""

PLANES = ("data", "variance", "mask")
"""The planes of a frame, in the order in which they stand in blocks."""

STACK_MAPS = {"n_used": "uint16", "n_rejected": "uint16", "exposure": "float32", "coverage": "uint16"}
"""Planes that only a stack can have, and their types: how many inputs were used, how many rejected, their exposure time, and how
many have data."""

APERTURE = "variance_aperture"
"""The plane of variances whose sums over apertures are right, of the dtype of the data: neighbours in it are correlated."""

MAPS = {**STACK_MAPS, APERTURE: "float32"}
"""Planes that operations do not know, and their types where nothing else tells them."""

ALL_PLANES = (*PLANES, *MAPS)
"""All planes of a block, in their order."""


class Request(NamedTuple):
    """A region of a step's output, and the planes of it that are wanted."""

    region: Region
    planes: frozenset[str]


class Block(NamedTuple):
    """The pixels of one region; planes that nobody asked for are None.

    Arrays have the shape of the region. They may be views of larger arrays and must not be written to.
    """

    region: Region
    # A tuple and not a dataclass: dask's `sizeof` adds up the items of a tuple, but counts 48 bytes for a dataclass
    # whatever arrays it holds, so the scheduler would not see the memory.
    data: Array | None = None
    variance: Array | None = None
    mask: Array | None = None
    n_used: Array | None = None
    n_rejected: Array | None = None
    exposure: Array | None = None
    coverage: Array | None = None
    variance_aperture: Array | None = None

    def plane(self, name: str) -> Array:
        """Return the named plane, which must have been asked for."""
        array = getattr(self, name)
        assert array is not None, f"plane {name!r} was not asked for"
        return array  # type: ignore[no-any-return]

    def crop(self, region: Region) -> Block:
        """Return the part in ``region`` as views."""
        if region == self.region:
            return self
        cut = region.within(self.region)
        return Block(region, *(None if a is None else a[cut] for a in self[1:]))

    @property
    def is_empty(self) -> bool:
        """Whether it has no planes."""
        return all(array is None for array in self[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        return sum(a.nbytes for a in self[1:] if a is not None)


class Target(NamedTuple):
    """Where the planes of a region go, if they are what users hold: a program writes there, and the block stays empty."""

    region: Region
    forms: tuple[tuple[str, str], ...]
    """Planes, and what each becomes: a type of uncertainty for variances."""

    arrays: tuple[Array, ...]


def empty_block(request: Request, dtypes: dict[str, np.dtype[Any]]) -> Block:
    """Return a block with uninitialised arrays for the planes of a request."""
    arrays = {plane: np.empty(request.region.shape, dtypes[plane]) for plane in ALL_PLANES if plane in request.planes}
    return Block(request.region, **arrays)

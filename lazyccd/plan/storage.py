"""The protocol by which a plan reads pixels from storage; `lazyccd.io` implements it for FITS and Zarr.

A storage is a description that travels in every task, so it holds no open file. Readers check when they open that the file is
still the one that the plan was made of: size, modification time and inode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.sections import Region


@dataclass(frozen=True)
class StoredRows:
    """How the pixels of an image lie in a file whose bytes a program can decode; see `lazyccd.kernels.program`."""

    op: int
    """The operation that loads them."""

    extra: int
    """What it adds to integers."""

    row_bytes: Callable[[Region], int]
    """``row_bytes(region)``: how much memory each row of a region takes."""

    read: Callable[[Region, Array], tuple[int, int]]
    """``read(region, buffer)`` fills a buffer of bytes, and returns the bytes from one row to the next, and how many it used."""


class Reader(Protocol):
    """An open storage. One task opens it, reads and closes it; it is not shared between threads."""

    def read(self, region: Region) -> Array:
        """Return exactly the pixels of the region: native byte order, C-contiguous, the storage's dtype."""
        ...

    def stored_rows(self) -> StoredRows | None:
        """Return how to read rows undecoded; None if they are compressed, or coded in a way that programs do not know."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


class Storage(Protocol):
    """Random access to the pixels of one image; a frozen, hashable, picklable description without arrays or files."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype of what `Reader.read` returns."""
        ...

    @property
    def name(self) -> str:
        """Where the pixels are, for messages."""
        ...

    @property
    def place(self) -> str:
        """The file or store that is read: a path or URL, or a name where there is none."""
        ...

    @property
    def identity(self) -> object:
        """What tells one state of the place from another; its text is for messages."""
        ...

    @property
    def token(self) -> str:
        """Deterministic identity: place, size, modification time, decoding."""
        ...

    @property
    def chunks(self) -> tuple[int, int]:
        """Shape of chunks that suit the layout of the storage."""
        ...

    @property
    def rows(self) -> int:
        """How many rows are decoded together: the height of tiles or chunks, from row 0 on; 1 where any row is read alone."""
        ...

    @property
    def unpacked_bytes(self) -> int:
        """Bytes that are unpacked at least for any region, and what they are unpacked from; 0 where pixels lie as they are."""
        ...

    def open(self) -> Reader:
        """Open for reading; raises `SourceChangedError` if the storage is not what it was."""
        ...

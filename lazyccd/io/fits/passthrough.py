"""Keep HDUs that are no frames, such as tables: where their bytes are, and how they get into another file unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lazyccd.errors import FormatError
from lazyccd.io.fits.byte_source import Identity, open_source

PIECE = 1 << 22
"""Bytes that are copied at a time."""


@dataclass(frozen=True)
class KeptBytes:
    """The bytes of an HDU, header and data: a range of a FITS file, or an array of a Zarr store."""

    path: str
    """The file, or the store."""

    size: int
    """How many there are, without the padding."""

    offset: int = 0
    """Where they start in the file, after whole-file decompression."""

    identity: Identity | None = None
    """What the file was when its headers were read."""

    array: str = ""
    """The array in the store; empty for a file."""

    content: bytes = b""
    """The bytes themselves, if they were made here."""

    @classmethod
    def of(cls, place: Mapping[str, Any]) -> KeptBytes:
        """Return what `to_json` described."""
        given = dict(place)
        identity = given.pop("identity", None)
        return cls(**given, identity=None if identity is None else Identity(**identity))

    def to_json(self) -> dict[str, Any]:
        """Return it as values that go into JSON."""
        # What is empty is left out: these values are attributes of a tree, which users look at.
        given = {key: value for key, value in asdict(self).items() if value not in (None, "", b"", 0)}
        return {"path": self.path, "size": self.size, **given}

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes, a few megabytes at a time.

        Raises
        ------
        SourceChangedError
            Raised if the file is no longer the one whose headers were read.
        FormatError
            Raised if the file ends before them.
        """
        if self.array or self.content:
            yield from self._of_store() if self.array else (self.content,)
            return
        # The file may be gone or changed by the time that products are written.
        source = open_source(self.path, self.identity).source
        try:
            for start in range(0, self.size, PIECE):
                wanted = min(PIECE, self.size - start)
                piece = source.read(self.offset + start, wanted)
                if len(piece) != wanted:
                    raise FormatError(f"{self.path} ends within an HDU that is to be copied; fetch the file again.")
                yield piece
        finally:
            source.close()

    def read(self) -> bytes:
        """Return all bytes."""
        return b"".join(self.pieces())

    def _of_store(self) -> Iterator[bytes]:
        import zarr  # takes a while, and most processes never read a store this way

        values: Any = zarr.open_array(self.path, path=self.array, mode="r")[:]
        yield np.asarray(values, np.uint8).tobytes()

"""Compute CRC32C checksums, as shards, receipts and provenance hold them.

Zarr defines CRC32C for chunks and indices, so one checksum serves for all; processors have an instruction for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import google_crc32c


def checksum(pieces: Iterable[bytes]) -> int:
    """Return the CRC32C of pieces that follow each other.

    Examples
    --------
    >>> hex(checksum([b"12345", b"6789"]))
    '0xe3069283'
    """
    value = 0
    for piece in pieces:
        value = google_crc32c.extend(value, piece)
    return value

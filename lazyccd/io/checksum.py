"""Checksums of bytes."""

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

"""Checksums of bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple
import google_crc32c
import numcodecs.blosc
import numpy as np
import numpy.typing as npt
from numcodecs.blosc import Blosc
from lazyccd.errors import FormatError
from lazyccd.sections import Region

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

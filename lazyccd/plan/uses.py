"""Which planes of an input a step uses, for each plane that it makes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

from dask.tokenize import tokenize

from lazyccd.kernels.block import ALL_PLANES, PLANES

PlaneMap: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""For each output plane, the planes of an input that are used to make it."""

POINTWISE: PlaneMap = tuple((name, (name,)) for name in ALL_PLANES)
"""Each plane from the same plane: additions, windows."""

WITH_DATA: PlaneMap = (("data", ("data",)), ("variance", ("data", "variance")), ("mask", ("mask",)))
"""The variance needs the data too: products."""

MASK_WITH_DATA: PlaneMap = (("data", ("data",)), ("variance", ("data", "variance")), ("mask", ("data", "mask")))
"""As products; the mask needs the data, to know where the result is not finite or beyond a limit: quotients, rejections."""

EVERYTHING: PlaneMap = tuple((name, PLANES) for name in PLANES)
"""Each plane from all planes: detections, filters that skip bad pixels."""


@lru_cache(maxsize=256)
def token_of_words(words: tuple[tuple[str, Any], ...]) -> str:
    """Return the token of names of planes with what belongs to each: there are few, and each step has some."""
    return str(tokenize(words))

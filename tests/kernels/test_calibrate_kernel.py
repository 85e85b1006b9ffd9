"""The flat field pixel by pixel, against plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyccd.kernels.block import PLANES, Block, Request
from lazyccd.kernels.flat import divide_flat
from lazyccd.sections import Region

BAD, LOW_FLAT, NO_DATA = 1, 16, 8
NORM, LOWEST = 2.0, 0.1


def expected_pixel(value: Any, variance: Any, flat: Any, noise: Any, bad: bool, min_value: float | None) -> Any:
    """Return data, variance and whether the flat is low, in the type of the pixels."""
    kind = type(value)
    low = (
        flat < min_value if min_value is not None else not (flat / kind(NORM) > 0 and flat / kind(NORM) >= kind(LOWEST))
    )
    level = (kind(min_value) if min_value is not None and low else flat) / kind(NORM)
    usable = level > 0 and not bad
    data = value / level if usable else value
    noise = data * data * (noise / kind(NORM * NORM)) if usable else kind(0)
    if min_value is None and low:
        return value, variance, True
    return data, (variance + noise) / (level * level if usable else kind(1)), low


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0.5]), st.booleans(), st.booleans(), st.booleans())
def test_flat_pixel_by_pixel(
    dtype: str, seed: int, min_value: float | None, has_mask: bool, has_noise: bool, has_variance: bool
) -> None:
    """Any flat, with dead, negative, low and masked pixels, divides as the definition says, bit for bit."""
    rng = np.random.default_rng(seed)
    shape = (5, 7)
    data, variance, noise = (rng.uniform(1, 9, shape).astype(dtype) for _ in range(3))
    flat = rng.choice(np.array([0, -1, 0.1, 0.45, 1.5, 2, 2.5], dtype), shape)
    mask = rng.integers(0, 2, shape).astype(np.uint16) if has_mask else None
    request = Request(Region.full(shape), frozenset(PLANES))
    out = divide_flat(
        request,
        Block(request.region, data, variance if has_variance else None),
        Block(request.region, flat, noise if has_noise else None, mask),
        norm=np.array(NORM), min_value=min_value, lowest=LOWEST, bad_bits=BAD, low_flat=LOW_FLAT, no_data=NO_DATA,
        dtype=dtype, mask_dtype="uint16", remap=(),
    )  # fmt: skip
    zero = np.dtype(dtype).type(0)
    for at in np.ndindex(shape):
        bad = mask is not None and bool(mask[at])
        given_variance, given_noise = variance[at] if has_variance else zero, noise[at] if has_noise else zero
        pixel, spread, low = expected_pixel(data[at], given_variance, flat[at], given_noise, bad, min_value)
        assert out.plane("data")[at] == pixel
        assert out.plane("variance")[at] == spread
        assert out.plane("mask")[at] == (BAD if bad else 0) | (LOW_FLAT if low else 0)

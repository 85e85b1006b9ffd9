"""What resampling spreads of an outlier is rejected with it: compared with a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from lazyccd.kernels.resample.weights import spread_of
from lazyccd.kernels.stack.rejection import KEPT, LEAST_SPREAD, spread_rejected


@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3", "area"])
def test_neighbours_that_a_kernel_reaches_are_marked(kernel: str, rng: np.random.Generator) -> None:
    """Only of strong outliers, only where a part of them may be above the limit, and never what stays."""
    excess = np.where(rng.random((3, 12, 15)) < 0.06, rng.integers(1, 200, (3, 12, 15)), 0).astype(np.uint8)
    excess[rng.random(excess.shape) < 0.1] = KEPT
    parts = spread_of(kernel, 1.0)
    spread = np.outer(parts, parts)
    expected = np.zeros(excess.shape, bool)
    for i, y, x in np.argwhere((excess >= LEAST_SPREAD) & (excess != KEPT)):
        for v, u in np.ndindex(excess.shape[1:]):
            dy, dx = abs(v - y), abs(u - x)
            near = dy < len(parts) and dx < len(parts) and float(excess[i, y, x]) * spread[dy, dx] > 1
            expected[i, v, u] |= near and excess[i, v, u] != KEPT
    grown = np.zeros(excess.shape, bool)
    spread_rejected(excess, spread, grown)
    assert expected.any()
    np.testing.assert_array_equal(grown, expected)

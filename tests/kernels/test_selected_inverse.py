"""The diagonal of an inverse from sparse factors against that of the whole inverse."""

import numpy as np

from lazyccd.kernels.selected_inverse import filled, invert_on_pattern


def test_diagonal_of_the_inverse_of_a_grid() -> None:
    """Neighbours on a grid, whose factors fill in; an entry that is left out because it is 0 is implied by others."""
    size = 30
    rng = np.random.default_rng(0)
    links = rng.random((size, size)) < 0.1
    matrix = -1.0 * (links | links.T)
    np.fill_diagonal(matrix, 0)
    np.fill_diagonal(matrix, 1 - matrix.sum(axis=1))
    factor = np.linalg.cholesky(matrix)
    unit, pivots = factor / np.diag(factor), np.diag(factor) ** 2
    below = np.tril(unit, -1)
    columns, rows = np.nonzero(np.abs(below.T) > 1e-14)
    starts = np.searchsorted(columns, np.arange(size + 1))
    starts, rows, lower = filled(starts, rows, below[rows, columns])
    assert lower.size < size * (size - 1) / 2  # it is sparse
    inverse = np.empty(size)
    invert_on_pattern(starts, rows, lower, pivots, np.zeros(lower.size), np.full(size, -1), np.zeros(size), inverse)
    np.testing.assert_allclose(inverse, np.diag(np.linalg.inv(matrix)), rtol=1e-12)

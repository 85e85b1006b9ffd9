"""Few pixels of many: groups of flagged ones that touch, and how many pixels have each bit of a mask.

Cosmic rays and stars cover a small part of an image. A list of their places takes a tenth of the time of filters and labels
that look at all pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array, Block
from lazyccd.kernels.jit import compiled

Flags = npt.NDArray[np.bool_]


def groups_of(flags: Flags, *, diagonal: bool) -> tuple[Array, Array, int]:
    """Return the places of flagged pixels, the number of the group that each belongs to, and how many groups there are.

    Parameters
    ----------
    flags
        Where an image is flagged, shape (ny, nx).
    diagonal
        Whether pixels that share a corner touch; those that share a side always do.

    Returns
    -------
    places
        Positions in the flattened image, ascending.
    numbers
        Number of the group of each, from 1 in the order of their first pixels, as `scipy.ndimage.label` has them.
    count
        The highest number.

    Examples
    --------
    >>> flags = np.array([[True, False, True], [False, True, False]])
    >>> groups_of(flags, diagonal=False)
    (array([0, 2, 4]), array([1, 2, 3]), 3)
    >>> groups_of(flags, diagonal=True)[2]
    1
    """
    places = np.flatnonzero(flags)
    numbers = np.empty(places.size, np.int64)
    return places, numbers, int(_number(places, flags.shape[1], diagonal, numbers))


@compiled
def _root(parents: Array, i: int) -> int:
    """Return the first pixel of the group of a pixel, and shorten the way to it."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@compiled
def _number(places: Array, width: int, diagonal: bool, numbers: Array) -> int:
    """Give each pixel the number of its group, and return how many there are.

    Parameters
    ----------
    places
        Positions in the flattened image, int64, ascending.
    width
        Columns of the image.
    diagonal
        Whether pixels that share a corner touch.
    numbers
        Receives the numbers, int64, one for each place.
    """
    # While groups grow, the entry of a pixel is another one of its group, and that of the first pixel is itself.
    above = 0
    reach = 1 if diagonal else 0
    for i in range(places.size):
        place = places[i]
        x = place % width
        numbers[i] = i
        if i > 0 and x > 0 and places[i - 1] == place - 1:
            numbers[i] = _root(numbers, i - 1)
        while places[above] < place - width - reach:
            above += 1
        k = above
        while k < i and places[k] <= place - width + reach:
            # The neighbour of a pixel at the edge may be at the other edge, a row further.
            if abs(places[k] % width - x) <= reach:
                a, b = _root(numbers, k), _root(numbers, i)
                numbers[max(a, b)] = min(a, b)
            k += 1
    count = 0
    for i in range(places.size):
        # First pixels come before the others of their group, whose entries lead to them or to what has its number already.
        if numbers[i] == i:
            count += 1
            numbers[i] = -count
        else:
            numbers[i] = numbers[numbers[i]]
    for i in range(places.size):
        numbers[i] = -numbers[i]
    return count


def most_of_nine(flags: Flags) -> Flags:
    """Return where five of a pixel and its eight neighbours are flagged; beyond the edge the image goes on in a mirror.

    The median of nine pixels is above a threshold exactly where five of them are, so this finds what a median filter would.

    Examples
    --------
    >>> most_of_nine(np.array([[True, True, False], [True, True, False], [False, False, False]])).astype(int)
    array([[1, 1, 0],
           [1, 0, 0],
           [0, 0, 0]])
    """
    padded = np.pad(flags, 1, "symmetric").view(np.uint8)
    rows = padded[:-2] + padded[1:-1]
    rows += padded[2:]
    total = rows[:, :-2] + rows[:, 1:-1]
    total += rows[:, 2:]
    found: Flags = total >= 5
    return found


def count_bits(block: Block, *, bits: int, bad_bits: int) -> Array:
    """Return how many pixels of a block have each bit of the mask, from the lowest, and last how many are bad.

    Parameters
    ----------
    block
        With a mask.
    bits
        How many are counted.
    bad_bits
        Bits of which any makes a pixel bad.
    """
    assert block.mask is not None
    counts = np.zeros(bits + 1, np.int64)
    mask = np.ascontiguousarray(block.mask).reshape(-1)
    _count_bits(mask, mask.dtype.type(bad_bits), counts)
    return counts


def add_bits(partials: Sequence[Array], *, bits: int, bad_bits: int) -> Array:
    """Return the sum of counts."""
    total = np.zeros(bits + 1, np.int64)
    for partial in partials:
        total += partial
    return total


@compiled
def _count_bits(mask: Array, bad: int, counts: Array) -> None:
    """Count the bits of flat masks, and last the masks that have any of some bits."""
    last = counts.size - 1
    for i in range(mask.size):
        value = mask[i]
        # Most pixels have no bit.
        if value != 0:
            for bit in range(last):
                counts[bit] += (value >> bit) & 1
            counts[last] += value & bad != 0

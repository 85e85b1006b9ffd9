"""What combining works on: a rule for all frames, and pieces of them that stay in cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.pointwise import Remap

Array: TypeAlias = npt.NDArray[Any]
Clip: TypeAlias = tuple[str, Any]
"""Name and settings of what rejects inputs; see `lazyccd.kernels.stack.clipping.CLIPS`."""


@dataclass(frozen=True)
class Noise:
    """The noise of each frame in units of its data, before scaling."""

    readnoise: tuple[float, ...]
    """In electrons."""

    gain: tuple[float, ...]
    """Electrons per unit of the data."""

    snoise: tuple[float, ...]
    """Fraction of the signal."""

    @property
    def terms(self) -> Array:
        """For each frame a, b and c of the variance ``a + b x + c x**2`` at the level x >= 0."""
        rows = zip(self.readnoise, self.gain, self.snoise, strict=True)
        return np.array([((r / g) ** 2, 1 / g, s * s) for r, g, s in rows])


@dataclass(frozen=True)
class Rule:
    """How frames are combined."""

    method: str
    """``average``, ``median`` or ``sum``."""

    count: int
    """How many frames there are."""

    has_pixel_weights: bool
    """Whether as many blocks follow whose data are the weights of pixels."""

    shares_masters: bool
    """Whether as many blocks follow whose variance is that of each frame without the masters that all share."""

    levels: Any
    """How frames are brought to one level, and their weights; see `lazyccd.kernels.stack.scaling.Levels`."""

    clips: tuple[Clip, ...]
    """What rejects inputs as they are, in this order."""

    reject: Clip | None
    """What rejects inputs when they were brought to one level."""

    nkeep: int
    """How many inputs are kept at least, or if negative, how many ``reject`` may take away at most."""

    grow: float
    """Inputs within so many pixels of a rejected one in the same frame are rejected too."""

    noise: Noise | None
    """For `reject` rules that use it."""

    flavor: str
    """``ccdproc``, or ``iraf`` for imcombine's arithmetic."""

    about_median: bool
    """For ``iraf``: whether clipping is about the median."""

    ncombine: tuple[int, ...]
    """For ``iraf``: how many frames each one was made of."""

    exposures: tuple[float, ...]
    """Exposure times for the exposure map; empty if there is none."""

    uncertainty: str
    """``propagated``, ``scatter`` or ``ccdproc``."""

    work: str
    """The dtype in which values are kept: float32 where all frames have it and nothing is scaled."""

    dtype: str
    """Of the data and variance of the result."""

    mask_dtype: str
    """Of the mask of the result."""

    remaps: tuple[Remap | None, ...]
    """For each frame, how the bits of its mask become those of the result; None without a mask."""

    bad: int
    """Bits that count as bad."""

    ranks: tuple[int, ...]
    """Bad bits from the least to the worst class; the last one is NO_DATA, of which nothing is used."""

    saturated: int
    """The bit of SAT if it counts as bad, else 0."""

    clipped: int
    """The bit of CLIPPED."""

    no_data: int
    """The bit of NO_DATA."""


@dataclass
class Piece:
    """Some pixels of all frames; arrays have the shape (frames, pixels)."""

    values: Array
    """Data."""

    use: Array
    """Whether an input counts."""

    bits: Array | None = None
    """Masks; None if no frame has one."""

    variances: Array | None = None
    """Variances, if they are needed."""

    own: Array | None = None
    """Variances without what all frames have in common, if they have anything."""

    weights: Array | None = None
    """Weights, if they differ from pixel to pixel."""

    multipliers: Array | None = None
    """What the values of each frame were multiplied by; None if nothing was scaled."""

    offsets: Array | None = None
    """What was then added; None if nothing was scaled."""

    noise: Array | None = None
    """The terms of each frame's noise."""

    combined: Array | None = None
    """The result, if it was made with the rejections."""

    def take(self, pixels: Array) -> Piece:
        """Return a piece of some of the pixels, copied."""

        def part(array: Array | None) -> Array | None:
            return None if array is None else np.take(array, pixels, axis=1)

        return Piece(
            np.take(self.values, pixels, axis=1),
            np.take(self.use, pixels, axis=1),
            part(self.bits),
            part(self.variances),
            part(self.own),
            part(self.weights),
            self.multipliers,
            self.offsets,
            self.noise,
            None if self.combined is None else np.take(self.combined, pixels),
        )

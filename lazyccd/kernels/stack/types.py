"""What the kernels of a stack work on: a rule for all frames, and batches of their pixels.

A `Rule` says how frames are combined. Its parts answer one question each: what is rejected (`Rejecting`), how frames are
brought to one level (`lazyccd.kernels.stack.scaling.Levels`), what the bits of masks mean (`MaskBits`), which dtypes are used
(`Dtypes`), and what IRAF's imcombine needs besides (`ImcombineRule`). A `PixelBatch` holds some pixels of all frames, and
which of them still count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import Array
from lazyccd.kernels.pointwise import Remap
from lazyccd.kernels.stack.scaling import Levels


class Rejection(Protocol):
    """What a kernel asks of a rejection rule; `lazyccd.ops.stack.rejection` has the rules."""

    name: ClassVar[str]
    """What users and messages call it."""

    whole_lines: ClassVar[bool]
    """Whether its batches must be whole lines of the image, because it measures something along them."""

    needs_variance: ClassVar[bool]
    """Whether it looks at the variances of the inputs."""

    needs_skies: ClassVar[bool]
    """Whether it is about how far inputs are above the sky of their frames."""

    def of_frames(self, frames: Sequence[int]) -> Rejection:
        """Return the rule for some of the frames: those that lie on a region of a mosaic."""

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected.

        Parameters
        ----------
        batch
            The pixels. Only inputs that count may be looked at, so that masked ones are no baseline, and nothing that
            depends on the place of a pixel in its batch: chunking never changes a pixel.
        residual
            Frames x pixels, float64: how far off each rejected input is, so that the least bad can be restored. Without
            elements if nobody asks.
        """


class Agreement(Protocol):
    """What a kernel asks before it combines frames; `lazyccd.ops.mosaic.agreement` has it."""

    def check(self, frames: Sequence[int], multipliers: Array, scalars: Mapping[str, Array]) -> None:
        """Raise an error if frames must not be combined.

        Parameters
        ----------
        frames
            Numbers of the frames that have pixels in a region.
        multipliers
            What each of them is multiplied by.
        scalars
            What was found of each, by name.
        """


@dataclass(frozen=True)
class Noise:
    """The noise of each frame in units of its data, before scaling; IRAF's model (Valdes)."""

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


@dataclass(frozen=True, kw_only=True)
class Rejecting:
    """What is rejected, and how much of it may be."""

    clips: tuple[Rejection, ...] = ()
    """What looks at values as they are, in this order."""

    reject: Rejection | None = None
    """What looks at values that were brought to one level."""

    nkeep: int = 1
    """How many inputs are kept at least; if negative, how many ``reject`` may take away at most; 0 for no limit."""

    grow: float = 0.0
    """Radius in pixels within which inputs of the same frame are rejected too."""

    spread: tuple[tuple[float, ...], ...] = ()
    """Part of an outlier that lies so many rows and columns away, for inputs that resampling has spread; empty for none. Inputs of the
    same frame are rejected too where that part, in units of the limit of ``reject``, may be above 1."""

    @property
    def reach(self) -> int:
        """How far away the rejection of an input may have others rejected, in pixels."""
        return max(int(self.grow), len(self.spread) - 1)

    def __post_init__(self) -> None:
        """Check the radius."""
        if not 0 <= self.grow < math.inf:
            raise ParameterError(f"grow {self.grow:g} must be 0 or a radius in pixels.")


@dataclass(frozen=True, kw_only=True)
class MaskBits:
    """What the bits of masks mean; the defaults are those of frames without masks."""

    remaps: tuple[Remap | None, ...]
    """For each frame, how the bits of its mask become those of the result; None without a mask."""

    bad: int = 0
    """Bits that count as bad."""

    ranks: tuple[int, ...] = (0,)
    """Bad bits from the least to the worst class; the last one is NO_DATA, of which nothing is used."""

    saturated: int = 0
    """The bit of SAT if it counts as bad, else 0."""

    clipped: int = 0
    """The bit of CLIPPED."""

    no_data: int = 0
    """The bit of NO_DATA."""


@dataclass(frozen=True, kw_only=True)
class Dtypes:
    """The dtypes of a combination, by their names."""

    work: str = "float64"
    """In which values are kept: float32 where all frames have it, which halves the traffic between memory and cores."""

    result: str = "float64"
    """Of the data and variance of the result."""

    mask: str = "uint16"
    """Of the mask of the result."""


@dataclass(frozen=True, kw_only=True)
class ImcombineRejection:
    """A rejection in the terms of IRAF's imcombine."""

    kind: str
    """imcombine's ``reject``: ``sigclip``, ``avsigclip``, ``ccdclip``, ``pclip`` or ``minmax``."""

    low: float = math.inf
    """``lsigma``."""

    high: float = math.inf
    """``hsigma``."""

    about_median: bool = False
    """``mclip``: whether clipping is about the median, and values are sorted for it."""

    order: float = 0.0
    """For ``pclip``, the number of orders from the median."""

    counts: tuple[int, int] = (0, 0)
    """For ``minmax``, how many of the lowest and highest values are rejected."""

    noise: Noise | None = None
    """For ``ccdclip``."""


@dataclass(frozen=True, kw_only=True)
class ImcombineRule:
    """What imcombine's arithmetic needs besides."""

    ncombine: tuple[int, ...]
    """How many frames each one was made of; imcombine's weights are in proportion to it."""

    rejection: ImcombineRejection | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How frames are combined."""

    count: int
    """How many frames there are."""

    masks: MaskBits
    """What the bits of the frames' masks mean."""

    method: str = "average"
    """``average``, ``median`` or ``sum``."""

    rejecting: Rejecting = field(default_factory=Rejecting)
    """What is rejected."""

    levels: Levels = field(default_factory=Levels)
    """How frames are brought to one level, and their weights."""

    least_used: int = 1
    """Pixels of which fewer inputs are used become NaN and NO_DATA."""

    has_pixel_weights: bool = False
    """Whether as many blocks follow whose data are the weights of pixels."""

    has_skies: bool = False
    """Whether as many blocks follow whose data are the sky of each frame, and as many with its variance."""

    shares_masters: bool = False
    """Whether as many blocks follow whose variance is that of each frame without the masters that all share."""

    uncertainty: str = "scatter"
    """``propagated``, ``scatter`` or ``ccdproc``."""

    exposures: tuple[float, ...] = ()
    """Exposure times for the exposure map; empty if there is none."""

    dtypes: Dtypes = field(default_factory=Dtypes)
    """The dtypes of values and results."""

    iraf: ImcombineRule | None = None
    """For imcombine's arithmetic; None for ours."""

    agreement: Agreement | None = None
    """What is held against the frames of a region before they are combined."""

    def __post_init__(self) -> None:
        """Check what depends on the number of frames."""
        if abs(self.rejecting.nkeep) > self.count:
            raise ParameterError(f"nkeep {self.rejecting.nkeep} must not be above the number of frames, {self.count}.")

    def of_frames(self, frames: Sequence[int]) -> Rule:
        """Return the rule for some of the frames; levels, which are relative to the first of all, are left out."""
        rejecting = self.rejecting
        nkeep = max(-len(frames), min(rejecting.nkeep, len(frames)))
        return replace(
            self,
            count=len(frames),
            masks=replace(self.masks, remaps=tuple(self.masks.remaps[i] for i in frames)),
            rejecting=replace(rejecting, nkeep=nkeep, reject=rejecting.reject and rejecting.reject.of_frames(frames)),
            levels=Levels(),
            exposures=tuple(self.exposures[i] for i in frames) if self.exposures else (),
        )

    @property
    def whole_lines(self) -> bool:
        """Whether batches must be whole lines: for imcombine, which works so, and for rejections that measure lines."""
        return self.iraf is not None or (self.rejecting.reject is not None and self.rejecting.reject.whole_lines)

    @property
    def needs_variance(self) -> bool:
        """Whether a rejection looks at the variances of the inputs."""
        return self.rejecting.reject is not None and self.rejecting.reject.needs_variance


@dataclass
class PixelBatch:
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

    apertures: Array | None = None
    """Variances for sums over apertures, if they are needed."""

    weights: Array | None = None
    """Weights, if they differ from pixel to pixel."""

    skies: Array | None = None
    """The sky of each frame, which is in its values, and its variance; frames x 2. None if nobody needs it."""

    multipliers: Array | None = None
    """What the values of each frame were multiplied by; None if nothing was scaled."""

    offsets: Array | None = None
    """What was then added; None if nothing was scaled."""

    combined: Array | None = None
    """The result, if it was made with the rejections."""

    def take(self, pixels: Array) -> PixelBatch:
        """Return a batch of some of the pixels, copied."""

        def part(array: Array | None) -> Array | None:
            return None if array is None else np.take(array, pixels, axis=1)

        return PixelBatch(
            np.take(self.values, pixels, axis=1),
            np.take(self.use, pixels, axis=1),
            bits=part(self.bits),
            variances=part(self.variances),
            own=part(self.own),
            apertures=part(self.apertures),
            weights=part(self.weights),
            skies=self.skies,
            multipliers=self.multipliers,
            offsets=self.offsets,
            combined=None if self.combined is None else np.take(self.combined, pixels),
        )

"""Rules that reject inputs of a stack, for ``reject=`` of `lazyccd.combine`.

Examples
--------
>>> from lazyccd.rejection import SigmaClip
>>> SigmaClip(low=4, high=3, deviation="mad_std")
SigmaClip(low=4, high=3, center='median', deviation='mad_std', iterations=None)
"""

from lazyccd.ops.mosaic.blot import Blotted
from lazyccd.ops.stack.rejection import (
    GESDT,
    AvSigmaClip,
    CCDClip,
    Clipped,
    CRReject,
    Extrema,
    Limits,
    LinearFit,
    MinMax,
    PercentileClip,
    Rejection,
    SigmaClip,
    UselessRejectionWarning,
    VarianceClip,
    Winsorized,
)

__all__ = [
    "GESDT",
    "AvSigmaClip",
    "Blotted",
    "CCDClip",
    "CRReject",
    "Clipped",
    "Extrema",
    "Limits",
    "LinearFit",
    "MinMax",
    "PercentileClip",
    "Rejection",
    "SigmaClip",
    "UselessRejectionWarning",
    "VarianceClip",
    "Winsorized",
]

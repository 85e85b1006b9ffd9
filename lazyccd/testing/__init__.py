"""Simulated skies and detectors with known truth, and asserts, for tests of this library and of what is built on it.

`make_night` writes a night of raw FITS files, `make_exposure` makes one frame of it; both return what a perfect reduction would
give. `assert_frames_equal` compares frames, `raise_if_computes` proves that code is lazy. Begin with ``simulate``.

``parity`` (comparisons with ccdproc) and ``steps`` (plans without files) are for this library's own tests. What needs pytest or
hypothesis does not belong here but in ``tests``.
"""

from lazyccd.testing.asserts import assert_frames_equal, raise_if_computes
from lazyccd.testing.simulate import Detector, Exposure, Night, Truth, make_exposure, make_night
from lazyccd.testing.sky import Sky

__all__ = [
    "Detector",
    "Exposure",
    "Night",
    "Sky",
    "Truth",
    "assert_frames_equal",
    "make_exposure",
    "make_night",
    "raise_if_computes",
]

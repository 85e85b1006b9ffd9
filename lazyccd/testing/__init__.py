"""Simulated skies and detectors with known truth, and asserts, for tests of this library and of what is built on it."""

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

"""Search for an image on which LA Cosmic carries a change as far as possible: made ``long_reach.npy`` in ten minutes.

Random pixels about the frontier of a change are changed; what carries it further is kept.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from lazyccd.kernels.cosmic_rays.lacosmic import LACosmic, detect

SETTINGS = LACosmic(satlevel=np.inf)
CHANGED = 40
"""Columns on the left whose pixels are replaced."""


def reach(image: np.ndarray) -> tuple[int, int]:
    """Return how many columns a change on the left carries to the right, and how many pixels differ."""
    other = image.copy()
    other[:, :CHANGED] = 50
    results = [detect(pixels, None, SETTINGS, levels=(100.0, 150.0)) for pixels in (image, other)]
    differ = ((results[0][0] != results[1][0]) | (results[0][1] != results[1][1]))[:, CHANGED:]
    columns = np.flatnonzero(differ.any(axis=0))
    return (int(columns[-1]) + 1, int(differ[:, columns[-1]].sum())) if columns.size else (0, 0)


def search(seconds: float, seed: int = 1) -> np.ndarray:
    """Return the best image found in a time."""
    rng, end = np.random.default_rng(seed), time.monotonic() + seconds
    found, best = (0, 0), np.zeros((24, 100), np.float32)
    while time.monotonic() < end:
        spikes = (rng.random((24, 100)) < 0.2) * rng.normal(2, 1.5, (24, 100))
        logs = rng.normal(0, 0.3, (24, 100)) + np.arange(100) * rng.uniform(0, 0.15) + spikes
        image = (10 * np.exp(logs)).clip(0, 1e7).astype(np.float32)
        score, stale = reach(image), 0
        while stale < 1500 and time.monotonic() < end:
            front, count, trial = CHANGED + score[0], rng.integers(1, 6), image.copy()
            rows, columns = rng.integers(0, 24, count), rng.integers(max(0, front - 12), min(100, front + 12), count)
            trial[rows, columns] = (10 * np.exp(rng.normal(3, 2.5, count))).astype(np.float32)
            new = reach(trial)
            stale = 0 if new > score else stale + 1
            if new >= score:
                image, score = trial, new
        if score > found:
            found, best = score, image
            print(found, flush=True)
    return best


if __name__ == "__main__":
    np.save(Path(__file__).with_name("long_reach.npy"), search(float(sys.argv[1]))[:, :80])

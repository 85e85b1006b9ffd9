"""What is written of a night: names, masters and the cards that say what they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import xarray as xr

from lazyccd import ops
from lazyccd.batch.night_plan import MasterGroup

FEW = 10
"""Fewer frames than this are combined by their median, others by a mean clipped about the median.

The median absolute deviation of five normal values is so often small that a clip at 4 sigma marks every sixth pixel.
"""

CLIP = 5.0
"""Robust standard deviations beyond which a value is left out of a master."""


def product_name(name: str) -> str:
    """Return a file's name without folder, extension and ending.

    Examples
    --------
    >>> product_name("r/obj12.fits.gz"), product_name("a.fit[SCI,2]")
    ('obj12', 'a_SCI_2')
    """
    base, _, selector = os.path.basename(name).partition("[")
    for packed in (".gz", ".bz2", ".xz", ".fz", ""):
        for stem in (".fits", ".fit", ".fts"):
            if base.lower().endswith(stem + packed):
                base = base[: -len(stem + packed)]
                return base + ("_" + selector.rstrip("]").replace(",", "_") if selector else "")
    return base


def combine_robustly(frames: list[xr.Dataset]) -> xr.Dataset:
    """Return the master of calibrated frames: their median if they are few, else a mean clipped about the median."""
    if len(frames) < FEW:
        median: xr.Dataset = ops.combine(frames, method="median")
        return median
    clipped: xr.Dataset = ops.combine(
        frames,
        method="average",
        sigma_clip=True,
        sigma_clip_low_thresh=CLIP,
        sigma_clip_high_thresh=CLIP,
        sigma_clip_func="median",
        sigma_clip_dev_func="mad_std",
    )
    return clipped


def with_master_cards(master: xr.Dataset, group: MasterGroup, count: int, bias: str) -> xr.Dataset:
    """Return a master whose header says what it is."""
    cards: dict[str, Any] = {
        "LZKIND": (f"master {group.kind}", "what lazyccd made of it"),
        "LZNFRAME": (count, "frames combined"),
    }
    if bias:
        cards["LZMAST1"] = (os.path.basename(bias), "master used")
    if bias and group.kind == "dark":
        cards["LZNOISE"] = ("own frames", "UNCERT leaves out the noise of the bias")
    made: xr.Dataset = ops.with_header(master, cards)
    return made


def with_provenance(frame: xr.Dataset, source: str, used: Iterable[str], status: str) -> xr.Dataset:
    """Return a product whose header names its source and its masters."""
    cards: dict[str, Any] = {"LZSOURCE": (os.path.basename(source), "file that was reduced")}
    for number, name in enumerate(used, 1):
        cards[f"LZMAST{number}"] = (os.path.basename(name), "master used")
    cards["LZSTATUS"] = (status, "whether all steps were done")
    made: xr.Dataset = ops.with_header(frame, cards)
    return made

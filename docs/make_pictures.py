"""Draw the pictures of README and of these pages from the simulated night: ``lazyccd demo && python docs/make_pictures.py``.

The layers of the code, ``layers.svg``, are drawn by ``draw_layers.py``.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from astropy.visualization import ZScaleInterval
from matplotlib import pyplot as plt
from PIL import Image

import lazyccd

STATIC = Path(__file__).parent / "_static"
ROWS, COLUMNS = slice(560, 1024), slice(560, 1056)
"""A corner with overscan, a bad column, cosmic rays and bright stars."""


def draw_night(folder: Path) -> None:
    """Draw a corner of a raw frame beside the same corner of the reduced one."""
    raw = lazyccd.open_fits(folder / "raw" / "light014.fits").ccd.cutout(y=ROWS, x=COLUMNS)
    reduced = lazyccd.open_fits(folder / "reduced" / "light014_red.fits").ccd.cutout(y=ROWS, x=slice(560, 1024))
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.9), width_ratios=(496, 464), layout="constrained")
    for axis, frame, title in ((axes[0], raw, "raw"), (axes[1], reduced, "reduced: lazyccd reduce")):
        pixels = frame["data"].values
        low, high = ZScaleInterval(contrast=0.2).get_limits(pixels[:, :460])
        axis.imshow(np.clip(pixels, low, high), origin="lower", cmap="gray", interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    drawn = BytesIO()
    figure.savefig(drawn, dpi=80)
    plt.close(figure)
    # noise does not compress: 24 shades of grey are a quarter of the size, and look the same
    Image.open(drawn).convert("L").quantize(24).save(STATIC / "night.png", optimize=True)


if __name__ == "__main__":
    mpl.use("Agg")
    draw_night(Path(sys.argv[1] if len(sys.argv) > 1 else "lazyccd_demo"))

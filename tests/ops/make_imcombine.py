"""Run IRAF's imcombine, and keep what it gives in ``imcombine.npz``: ``python tests/ops/make_imcombine.py``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

Array = npt.NDArray[Any]
HERE = Path(__file__).parent

NOISE = {"rdnoise": 10, "gain": 2, "snoise": 0.01}

CASES: dict[str, dict[str, Any]] = {
    "average": {},
    "median": {"combine": "median"},
    "sum": {"combine": "sum"},
    "sigclip": {"reject": "sigclip"},
    "sigclip mean": {"reject": "sigclip", "mclip": "no"},
    "sigclip low": {"reject": "sigclip", "lsigma": 1.2, "hsigma": 1.5, "nkeep": 3},
    "sigclip mean low": {"reject": "sigclip", "mclip": "no", "lsigma": 1.1, "hsigma": 1.0, "nkeep": 4},
    "sigclip nkeep": {"reject": "sigclip", "lsigma": 0.6, "hsigma": 0.7, "nkeep": -3},
    "sigclip median": {"reject": "sigclip", "combine": "median", "lsigma": 1.3, "hsigma": 1.3},
    "avsigclip": {"reject": "avsigclip", "lsigma": 2, "hsigma": 2},
    "avsigclip mean": {"reject": "avsigclip", "mclip": "no", "lsigma": 1.5, "hsigma": 2},
    "avsigclip median": {"reject": "avsigclip", "combine": "median", "lsigma": 1.5, "hsigma": 2},
    "ccdclip": {"reject": "ccdclip", **NOISE},
    "ccdclip mean": {"reject": "ccdclip", "mclip": "no", "lsigma": 1.5, "hsigma": 1.2, **NOISE},
    "ccdclip low": {"reject": "ccdclip", "lsigma": 0.8, "hsigma": 0.7, "nkeep": 2, **NOISE},
    "crreject": {"reject": "crreject", "hsigma": 1.5, **NOISE},
    "pclip": {"reject": "pclip", "lsigma": 2, "hsigma": 2},
    "pclip above": {"reject": "pclip", "pclip": 2, "lsigma": 1.5, "hsigma": 1.2, "nkeep": 3},
    "pclip median": {"reject": "pclip", "combine": "median", "pclip": -2},
    "minmax": {"reject": "minmax"},
    "minmax more": {"reject": "minmax", "nlow": 1, "nhigh": 3},
    "minmax low": {"reject": "minmax", "nlow": 2, "nhigh": 0, "combine": "median"},
    "thresholds": {"lthreshold": 950, "hthreshold": 1150, "reject": "minmax"},
    "thresholds sigclip": {"lthreshold": 950, "hthreshold": 1150, "reject": "sigclip", "lsigma": 1.3, "hsigma": 1.3},
    "thresholds weights": {"hthreshold": 1150, "weight": "exposure", "expname": "EXPTIME"},
    "weights": {"weight": "exposure", "expname": "EXPTIME", "reject": "sigclip", "lsigma": 1.4, "hsigma": 1.4},
    "weights plain": {"weight": "!W"},
    "weights sum": {"weight": "!W", "combine": "sum"},
    "scale mode": {"scale": "mode", "reject": "ccdclip", **NOISE},
    "scale median": {"scale": "median", "reject": "sigclip", "lsigma": 1.4, "hsigma": 1.4},
    "scale mean": {"scale": "mean", "reject": "avsigclip", "lsigma": 1.4, "hsigma": 1.4},
    "scale exposure": {"scale": "exposure", "expname": "EXPTIME", "reject": "sigclip", "mclip": "no", "lsigma": 1.4},
    "scale keyword": {"scale": "!W", "zero": "!Z", "reject": "ccdclip", "mclip": "no", **NOISE},
    "scale average": {"scale": "exposure", "expname": "EXPTIME", "reject": "avsigclip", "mclip": "no", "hsigma": 1.5},
    "zero": {"zero": "median", "reject": "sigclip", "lsigma": 1.4, "hsigma": 1.4},
    "zero and weights": {"zero": "mode", "weight": "!W", "reject": "minmax"},
    "zero and exposure": {"zero": "mode", "weight": "exposure", "expname": "EXPTIME", "reject": "minmax"},
    "scale and zero": {"scale": "exposure", "expname": "EXPTIME", "zero": "mean", "combine": "median"},
    "section": {"scale": "median", "statsec": "[5:30,3:20]"},
    "grow": {"reject": "sigclip", "lsigma": 2, "hsigma": 1.8, "grow": 1.5},
    "grow mean": {"reject": "ccdclip", "mclip": "no", "hsigma": 2, "grow": 1, **NOISE},
    "grow median": {"reject": "avsigclip", "combine": "median", "hsigma": 2, "grow": 2},
    "grow weights": {"reject": "pclip", "weight": "!W", "hsigma": 2, "grow": 1},
}
"""Parameters of imcombine, as IRAF names them."""

COUNTS = (3, 8, 11)
"""Numbers of frames."""


def frames(count: int) -> tuple[Array, list[dict[str, float]]]:
    """Return frames of different levels with outliers and ties, and their keywords."""
    rng = np.random.default_rng(count)
    values = rng.normal(1000, 20, (count, 23, 37))
    values[rng.random(values.shape) < 0.04] += 400
    values[rng.random(values.shape) < 0.02] -= 300
    levels = 1 + 0.15 * rng.random(count)
    values = (values * levels[:, None, None]).astype(np.float32)
    values[:, 5] = np.rint(values[:, 5])
    values[:, 6, 3:9] = 1000
    cards = [
        {"EXPTIME": float(np.float32(10 * v)), "W": float(k % 4 + 1), "Z": float(3 * k)} for k, v in enumerate(levels)
    ]
    return values, cards


def run_iraf(values: Array, cards: list[dict[str, float]], options: dict[str, Any]) -> tuple[Array, Array]:
    """Return what imcombine makes of frames, and how many it left out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, (plane, keys) in enumerate(zip(values, cards, strict=True)):
            fits.writeto(folder / f"f{i:02d}.fits", plane, fits.Header(keys))
        words = " ".join(f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in options.items())
        words = words.replace('"yes"', "yes").replace('"no"', "no")
        (folder / "run.cl").write_text(
            f'images\nimmatch\nunlearn imcombine\nimcombine "f*.fits" "out.fits" nrejmask="n.pl" logfile="" {words}\n'
            'imcopy "n.pl" "n.fits" verbose-\nlogout\n'
        )
        command = [shutil.which("irafcl") or "irafcl", "-f", "run.cl"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )
        if not (folder / "n.fits").exists():
            raise RuntimeError(f"imcombine {options} gave nothing: {done.stdout[-500:]}")
        results = []
        for file in ("out.fits", "n.fits"):
            with fits.open(folder / file) as hdus:
                results.append(np.array(next(hdu.data for hdu in hdus if hdu.data is not None)))
        return results[0].astype(np.float32), results[1].astype(np.uint8)


def main() -> None:
    """Run all cases."""
    kept = {}
    for count in COUNTS:
        values, cards = frames(count)
        for case, options in CASES.items():
            if options.get("nlow", 1) + options.get("nhigh", 1) >= count and options.get("reject") == "minmax":
                continue  # refused by both
            if options.get("nkeep", 1) > count:
                continue  # refused by lazyccd
            out, rejected = run_iraf(values, cards, options)
            kept[f"{count} {case} out"], kept[f"{count} {case} n"] = out, rejected
    np.savez_compressed(HERE / "imcombine.npz", **kept)


if __name__ == "__main__":
    main()

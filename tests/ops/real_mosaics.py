"""Mosaics of real frames beside those of SWarp, drizzle and reproject on the same grid; steps at the borders of frames; pictures.

``python tests/ops/real_mosaics.py --data ../shared/data --pictures FOLDER`` prints tables and draws each mosaic, before and after skies are
matched, and its difference from each peer. SWarp is left out where it is not installed. Each peer gets what it can do:

- SWarp: Lanczos 3, weights and bad pixels as maps of weights, no subtraction of the sky, against the same with ``weights="pixel"``. Of
  TPV it makes a scale that is 0.4 % off about the middle of the grid on the exposures of DECam; wcslib is as the formula says.
- drizzle: square kernel, bad pixels of weight 0, against ``order="area"``. It makes means over areas; lazyccd scales by the area of each
  pixel, which matters where pixels are distorted.
- reproject: bilinear, the mean of finite pixels, against ``order="bilinear"``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import pixel_to_pixel
from scipy.ndimage import maximum_filter, minimum_filter

import lazyccd

Array = npt.NDArray[Any]

M17 = ("s1420186", "s1420198", "s1430080", "s1430092", "s1440186", "s1440198")
"""Tiles of 2MASS, three strips of two."""

DITHERS = ("08:37:47.742", "08:40:27.113", "08:43:07.204")
"""Exposures of EFOSC2 of one field, of 120 s."""

DECAM = ("150411_035242_oo{}_z_ls9.N3", "170316_062107_oo{}_z_ls9.N2", "170419_042827_oo{}_z_ls9.S1")
"""Exposures of DECam of one field in z, on three of its detectors."""


def tiles(folder: Path) -> list[xr.Dataset]:
    """Return the tiles of M17."""
    return [lazyccd.open_fits(folder / "m17_2mass" / f"aK_asky_990502{name}.fits.gz", unit="adu") for name in M17]


def dithers(folder: Path) -> list[xr.Dataset]:
    """Return the exposures of EFOSC2 without bias, over the flat, without the shadow at the edges."""
    night = folder / "efosc2_ntt"
    biases = sorted(night.glob("EFOSC.2022-01-26T19*.fits"))
    flats = sorted(night.glob("EFOSC.2022-01-28T00*.fits"))
    bias = lazyccd.combine([lazyccd.open_fits(path, unit="adu") for path in biases], method="median")
    prepared = [lazyccd.open_fits(path, unit="adu").ccd.subtract_bias(bias) for path in flats]
    flat = lazyccd.combine(prepared, method="median", scale="median")
    found = []
    for name in DITHERS:
        raw = lazyccd.open_fits(night / f"EFOSC.2022-01-28T{name}.fits", unit="adu")
        found.append(raw.ccd.subtract_bias(bias).ccd.flat_correct(flat).ccd.cutout(y=slice(40, 960), x=slice(60, 980)))
    return found


def exposures(folder: Path) -> list[xr.Dataset]:
    """Return the exposures of DECam with weights as uncertainties, the pixels of a data quality code masked."""
    found = []
    for name in DECAM:
        image, weight, quality = (folder / "decam_cp_tpv_dq" / f"c4d_{name.format(kind)}.fits" for kind in "iwd")
        weights = fits.getdata(weight)
        bad = (fits.getdata(quality) != 0) | (weights <= 0)
        sigma = 1 / np.sqrt(np.where(bad, 1, weights))
        frame = lazyccd.open_fits(image, unit="adu").ccd.with_uncertainty(sigma, uncertainty_type="std")
        found.append(frame.ccd.add_mask(bad))
    return found


def good(frame: xr.Dataset) -> Array:
    """Return the data, with NaN for bad pixels."""
    return np.where(frame["mask"].values == 0, frame["data"].values, np.nan).astype(float)


def corrected(frames: list[xr.Dataset], mosaic: xr.Dataset, table: Table | None = None) -> list[Array]:
    """Return the warps of frames, minus what a table says."""
    shape = mosaic["data"].shape
    found = [lazyccd.wcs_project(frame, mosaic.ccd.wcs, shape, order="lanczos3")["data"].values for frame in frames]
    y, x = np.mgrid[: shape[0], : shape[1]]
    for warp, row in zip(found, table if table is not None else (), strict=False):
        warp -= row["constant"] + row["slope_y"] * (y - row["y"]) + row["slope_x"] * (x - row["x"])
    return found


def steps(warps: list[Array]) -> list[float]:
    """Return the median difference of each two frames that share at least 5000 pixels, which is the step at their borders."""
    found = []
    for number, one in enumerate(warps):
        for other in warps[:number]:
            both = np.isfinite(one) & np.isfinite(other)
            if both.sum() >= 5000:
                found.append(abs(float(np.median((one - other)[both]))))
    return found


def without_sky(folder: Path) -> list[xr.Dataset]:
    """Return the exposures of DECam without their sky, which differs by thousands."""
    return [frame.ccd.subtract_sky(box=64) for frame in exposures(folder)]


FIELDS: dict[str, Callable[[Path], list[xr.Dataset]]] = {"2MASS": tiles, "EFOSC2": dithers, "DECam": without_sky}
"""The frames of each field."""

MATCH: dict[str, dict[str, Any]] = {
    "2MASS": {"match": "plane"},
    "EFOSC2": {"match": "plane"},
    "DECam": {"match": "constant", "flux_scale": "overlaps"},
}
"""How skies and fluxes are matched."""

WEIGHTED = {"DECam"}
"""Fields whose exposures have maps of weights; the uncertainties of the others are only those of their masters."""

RADIUS = 6.0
"""Pixels of apertures."""


class Agreement(NamedTuple):
    """How two mosaics differ."""

    sources: int
    """Sources that are compared."""

    flux: float
    """Median ratio of fluxes, ours over theirs."""

    flux_scatter: float
    """Scatter of that, by the median absolute deviation."""

    offset: float
    """Median distance of the places of a source, in pixels."""

    pixels: float
    """Median absolute difference of pixels over their noise."""

    covered: float
    """Part of the pixels that one has and the other has not."""


def grid_of(frames: list[xr.Dataset]) -> tuple[WCS, tuple[int, int]]:
    """Return a grid in the system of the frames: SWarp takes all systems for the same."""
    wcs, shape = lazyccd.find_optimal_grid(frames)
    first = frames[0].ccd.wcs.wcs
    wcs.wcs.radesys, wcs.wcs.equinox = first.radesys, first.equinox
    wcs.wcs.set()
    return wcs, shape


def by_swarp(
    frames: list[xr.Dataset], wcs: WCS, shape: tuple[int, int], folder: Path, *, is_weighted: bool
) -> Array | None:
    """Return the mosaic that SWarp makes; None if it is not installed."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return None
    for number, frame in enumerate(frames):
        data = good(frame)
        sigma = frame["uncertainty"].values if is_weighted else np.ones(data.shape)
        weights = np.where(np.isfinite(data), 1 / sigma**2, 0)
        header = frame.ccd.wcs.to_header(relax=True) if not has_tpv(frame) else tpv_cards(frame)
        fits.PrimaryHDU(np.nan_to_num(data).astype("f4"), header).writeto(folder / f"f{number}.fits", overwrite=True)
        fits.PrimaryHDU(weights.astype("f4")).writeto(folder / f"f{number}.weight.fits", overwrite=True)
    target = wcs.to_header()
    target["NAXIS"], target["NAXIS1"], target["NAXIS2"] = 2, shape[1], shape[0]
    (folder / "out.head").write_text(target.tostring(sep="\n") + "\nEND\n")
    options = {
        "COMBINE_TYPE": "WEIGHTED",
        "RESAMPLING_TYPE": "LANCZOS3",
        "WEIGHT_TYPE": "MAP_WEIGHT",
        "WEIGHT_SUFFIX": ".weight.fits",
        "RESCALE_WEIGHTS": "N",
        "SUBTRACT_BACK": "N",
        "IMAGEOUT_NAME": "out.fits",
        "WEIGHTOUT_NAME": "out.weight.fits",
        "VERBOSE_TYPE": "QUIET",
        "WRITE_XML": "N",
    }
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    names = [f"f{number}.fits" for number in range(len(frames))]
    done = subprocess.run([program, *names, *words], cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"SWarp ended with status {done.returncode}: {done.stderr[-2000:]}")
    return np.where(fits.getdata(folder / "out.weight.fits") > 0, fits.getdata(folder / "out.fits"), np.nan).astype(
        float
    )


def has_tpv(frame: xr.Dataset) -> bool:
    """Return whether a WCS has the polynomials of SCAMP, which astropy does not write as it read them."""
    return str(frame.ccd.header["CTYPE1"]).endswith("TPV")


def tpv_cards(frame: xr.Dataset) -> fits.Header:
    """Return the cards of such a WCS for SWarp, which knows them by the name of TAN."""
    keys = ("CTYPE", "CRVAL", "CRPIX", "CD1_", "CD2_", "PV1_", "PV2_", "CUNIT", "RADESYS", "EQUINOX")
    found = fits.Header()
    for key, value in frame.ccd.header.items():
        if key.startswith(keys) and not key.endswith("A"):
            found[key] = value
    return found


def by_drizzle(frames: list[xr.Dataset], wcs: WCS, shape: tuple[int, int]) -> Array:
    """Return the mosaic that drizzle makes with square kernels."""
    from drizzle.resample import Drizzle

    made = Drizzle(kernel="square", out_shape=shape, fillval="nan")
    for frame in frames:
        data = good(frame)
        y, x = np.indices(data.shape)
        pixmap = np.dstack(pixel_to_pixel(frame.ccd.wcs, wcs, x, y))
        usable = np.isfinite(data)
        made.add_image(
            np.nan_to_num(data).astype("f4"),
            exptime=1.0,
            pixmap=pixmap,
            weight_map=usable.astype("f4"),
            in_units="counts",
        )
    return np.asarray(made.out_img, float)


def by_reproject(frames: list[xr.Dataset], wcs: WCS, shape: tuple[int, int]) -> Array:
    """Return the mean of what reproject makes of each frame, NaN where it has none."""
    from reproject import reproject_interp

    warps = [
        reproject_interp((good(frame), frame.ccd.wcs), wcs, shape_out=shape, order="bilinear")[0] for frame in frames
    ]
    count = np.isfinite(warps).sum(axis=0)
    return np.where(count > 0, np.nansum(warps, axis=0) / np.maximum(count, 1), np.nan)


def pairs(
    frames: list[xr.Dataset], wcs: WCS, shape: tuple[int, int], folder: Path, *, is_weighted: bool
) -> dict[str, tuple[Array, Array]]:
    """Return, for each peer, our mosaic and theirs."""

    def ours(**options: Any) -> Array:
        return np.asarray(lazyccd.coadd(frames, wcs, shape, reject=None, **options)["data"].values, float)

    weights = "pixel" if is_weighted else None
    swarp = by_swarp(frames, wcs, shape, folder, is_weighted=is_weighted)
    return {
        **({} if swarp is None else {"SWarp": (ours(order="lanczos3", weights=weights), swarp)}),
        "drizzle": (ours(order="area"), by_drizzle(frames, wcs, shape)),
        "reproject": (ours(order="bilinear"), by_reproject(frames, wcs, shape)),
    }


def agreement(ours: Array, theirs: Array, coverage: Array) -> Agreement:
    """Return how two mosaics differ in sources about which as many frames lie everywhere: peers leave out more about a bad pixel."""
    import sep

    both = np.isfinite(ours) & np.isfinite(theirs)
    filled = [np.ascontiguousarray(np.where(both, image, 0.0)) for image in (ours, theirs)]
    # the same sky for both: a difference between them would be one of skies otherwise
    sky = sep.Background(filled[0], mask=~both, bw=32, bh=32)
    flat = [image - sky.back() for image in filled]
    noise = 1.4826 * float(np.median(np.abs(flat[0][both])))
    found = sep.extract(flat[0], 5.0, err=noise, mask=~both)
    size = int(4 * RADIUS) + 1
    uneven = ~both | (maximum_filter(coverage, size) != minimum_filter(coverage, size))
    inside = ~uneven[np.rint(found["y"]).astype(int), np.rint(found["x"]).astype(int)]
    found = found[inside & (found["flag"] == 0)]
    fluxes = [sep.sum_circle(image, found["x"], found["y"], RADIUS)[0] for image in flat]
    places = [sep.winpos(image, found["x"], found["y"], 1.5)[:2] for image in flat]
    ratio = fluxes[0] / fluxes[1]
    ratio = ratio[np.isfinite(ratio) & (fluxes[1] > 50 * noise)]
    distance = np.hypot(places[0][0] - places[1][0], places[0][1] - places[1][1])
    middle = float(np.median(ratio))
    return Agreement(
        ratio.size,
        middle,
        float(1.4826 * np.median(np.abs(ratio - middle))),
        float(np.median(distance)),
        float(np.median(np.abs(ours - theirs)[both])) / noise,
        float(np.mean(np.isfinite(ours) != np.isfinite(theirs))),
    )


def draw(image: Array, path: Path, limits: tuple[float, float]) -> None:
    """Write a picture, north up."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    step = max(1, max(image.shape) // 1200)
    plt.imsave(
        path, np.clip(image[::step, ::step], *limits), origin="lower", cmap="gray", vmin=limits[0], vmax=limits[1]
    )


def pictures(field: str, frames: list[xr.Dataset], both: dict[str, tuple[Array, Array]], folder: Path) -> list[float]:
    """Draw the mosaic before and after matching and its differences from peers; return the largest and median step before and after."""
    grid = grid_of(frames)
    plain = lazyccd.coadd(frames, *grid, reject=None).compute()
    matched = lazyccd.coadd(frames, *grid, reject=None, **MATCH[field])
    before = steps(corrected(frames, matched))
    after = steps(corrected(frames, matched, lazyccd.mosaic_corrections(matched)))
    low, high = np.nanpercentile(plain["data"].values, (5, 97))
    draw(plain["data"].values, folder / f"{field}-plain.png", (low, high))
    draw(matched["data"].values, folder / f"{field}-matched.png", (low, high))
    for name, (ours, theirs) in both.items():
        draw(ours - theirs, folder / f"{field}-minus-{name}.png", (0.05 * (low - high), 0.05 * (high - low)))
    return [max(before), float(np.median(before)), max(after), float(np.median(after))]


def main() -> None:
    """Compare all fields, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fields", nargs="*", default=list(FIELDS))
    parser.add_argument("--data", type=Path, required=True, help="folder of the real frames")
    parser.add_argument("--pictures", type=Path, help="folder of pictures; none are drawn without it")
    given = parser.parse_args()
    warnings.simplefilter("ignore", FITSFixedWarning)
    for field in given.fields:
        frames = [frame.compute() for frame in FIELDS[field](given.data)]
        coverage = lazyccd.coadd(frames, *grid_of(frames), reject=None, maps=("coverage",))["coverage"].values
        with tempfile.TemporaryDirectory() as name:
            both = pairs(frames, *grid_of(frames), Path(name), is_weighted=field in WEIGHTED)
        print(f"{field}: {len(frames)} frames")
        for peer, images in both.items():
            told = agreement(*images, coverage)
            print(
                f"  {peer:<10} {told.sources:4d} sources: flux {told.flux - 1:+.1e} (scatter {told.flux_scatter:.1e}), place "
                f"{told.offset:.4f} pixels; pixels {told.pixels:.1e} of the noise; covered by one only {told.covered:.1e}"
            )
        if given.pictures is not None:
            given.pictures.mkdir(parents=True, exist_ok=True)
            found = pictures(field, frames, both, given.pictures)
            print("  steps at borders, largest and median: {:.3g}, {:.3g}; matched {:.3g}, {:.3g}".format(*found))


if __name__ == "__main__":
    main()

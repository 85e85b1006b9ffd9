"""What is measured: a table of workloads, each of which makes a lazy result of the files of `inputs` and writes it.

A workload gets the folder of the inputs and that of its outputs, and returns `Work`. It says what it plans before anything runs, so a
refusal comes from what it does here or from the call of the writer, never from a task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS
from inputs import NOISE, header

import lazyccd
from lazyccd import Keyword, rejection


@dataclass(frozen=True)
class Work:
    """A lazy result, and what is done with it."""

    run: Callable[[], object]
    """Does it; may refuse."""

    planned: tuple[xr.Dataset, ...] = ()
    """Frames whose plans say how much memory it takes; none where only the limit can be held."""


Maker = Callable[[Path, Path], "Work | Any"]
WORKLOADS: dict[str, Maker] = {}
TWINS: dict[str, str] = {}
"""Workloads that must not be refused where another one is not: the same in default chunks."""


def workload(make: Maker) -> Maker:
    """Add a workload to the table; it may return a lazy frame, which is written to Zarr."""
    WORKLOADS[make.__name__] = make
    return make


def to_zarr(ds: Any, out: Path, **how: Any) -> Work:
    """Return the write of a frame or a tree to Zarr."""
    return Work(lambda: lazyccd.to_zarr(ds, out / "out.zarr", **how), frames(ds))


def to_fits(ds: Any, out: Path, **how: Any) -> Work:
    """Return the write of a frame or a tree to FITS."""
    return Work(lambda: lazyccd.to_fits(ds, out / "out.fits", **how), frames(ds))


def frames(ds: Any) -> tuple[xr.Dataset, ...]:
    """Return the frames of a tree, or a frame."""
    return tuple(ds.ccd.frames.values()) if isinstance(ds, xr.DataTree) else (ds,)


def science(folder: Path, **how: Any) -> xr.Dataset:
    """Return the frame that has only data."""
    return lazyccd.open_fits(folder / "science.fits", **how)


def full(folder: Path, **how: Any) -> xr.Dataset:
    """Return the frame with uncertainty and mask."""
    return lazyccd.open_fits(folder / "full.fits", **how)


def raw(folder: Path, **how: Any) -> xr.Dataset:
    """Return the raw frame."""
    return lazyccd.open_fits(folder / "raw.fits", **how)


def rays(ds: Any, **how: Any) -> Any:
    """Return a frame without cosmic rays, whose gain and read noise are those of the header."""
    return lazyccd.cosmicray_lacosmic(ds, **({"gain": 1.5, "readnoise": 5.0} | how))


def stack(folder: Path, count: int | None = None) -> list[str]:
    """Return the paths of the frames of the deep stack, or of so many of them."""
    return [str(path) for path in sorted((folder / "stack").iterdir())][:count]


def calibrated(ds: Any, folder: Path) -> Any:
    """Return a raw frame without overscan, bias, dark and flat."""
    ds = lazyccd.subtract_overscan(ds, fits_section=Keyword("BIASSEC"), median=True)
    ds = lazyccd.trim_image(ds, Keyword("TRIMSEC"))
    ds = lazyccd.subtract_bias(ds, str(folder / "bias.fits"))
    ds = lazyccd.create_deviation(ds, **NOISE, disregard_nan=True)
    return lazyccd.flat_correct(ds, str(folder / "flat.fits"))


# ---- arithmetic and calibration


@workload
def add_number(folder: Path, out: Path) -> Any:
    return lazyccd.add(science(folder), 5.0 * u.adu)


@workload
def multiply_full(folder: Path, out: Path) -> Any:
    return lazyccd.multiply(full(folder), 2.0)


@workload
def divide_frames(folder: Path, out: Path) -> Any:
    return lazyccd.divide(full(folder), lazyccd.open_fits(folder / "flat.fits"))


@workload
def calibrate(folder: Path, out: Path) -> Any:
    return calibrated(raw(folder), folder)


@workload
def calibrate_to_fits(folder: Path, out: Path) -> Any:
    return to_fits(calibrated(raw(folder), folder), out)


@workload
def calibrate_one_chunk(folder: Path, out: Path) -> Any:
    return calibrated(raw(folder, chunks=-1), folder)


@workload
def overscan_model(folder: Path, out: Path) -> Any:
    from astropy.modeling.models import Polynomial1D

    return lazyccd.subtract_overscan(raw(folder), fits_section=Keyword("BIASSEC"), model=Polynomial1D(3))


@workload
def overscan_skip_bleeds(folder: Path, out: Path) -> Any:
    from astropy.modeling.models import Polynomial1D

    ds = lazyccd.flag_saturated(lazyccd.open_fits(folder / "high.fits"), 60000)
    return lazyccd.subtract_overscan(ds, fits_section=Keyword("BIASSEC"), model=Polynomial1D(3), skip_bleeds=True)


@workload
def overscan_auto(folder: Path, out: Path) -> Any:
    return lazyccd.subtract_overscan(raw(folder), fits_section=Keyword("BIASSEC"), statistic="auto")


@workload
def ccd_process(folder: Path, out: Path) -> Any:
    return lazyccd.ccd_process(
        raw(folder),
        oscan=Keyword("BIASSEC"),
        trim=Keyword("TRIMSEC"),
        error=True,
        master_bias=str(folder / "bias.fits"),
        master_flat=str(folder / "flat.fits"),
        gain_corrected=False,
        **NOISE,
    )


@workload
def deviation_and_gain(folder: Path, out: Path) -> Any:
    return lazyccd.gain_correct(lazyccd.create_deviation(science(folder), **NOISE), NOISE["gain"])


@workload
def linearity(folder: Path, out: Path) -> Any:
    return lazyccd.correct_linearity(raw(folder), coefficients=(1.0, 1e-6))


@workload
def fringe(folder: Path, out: Path) -> Any:
    return lazyccd.subtract_fringe(full(folder), str(folder / "fringe.fits"))


@workload
def illumination(folder: Path, out: Path) -> Any:
    flat = lazyccd.flat_correct(full(folder), str(folder / "flat.fits"))
    return lazyccd.divide_illumination(flat, str(folder / "flat.fits"))


@workload
def sky_mesh(folder: Path, out: Path) -> Any:
    return lazyccd.subtract_sky(science(folder))


@workload
def ordinary_chain(folder: Path, out: Path) -> Any:
    ds = rays(calibrated(raw(folder), folder))
    return lazyccd.median_filter(lazyccd.interpolate_bad_pixels(ds), 5)


# ---- masks


@workload
def saturated(folder: Path, out: Path) -> Any:
    return lazyccd.flag_saturated(full(folder), 3500, grow=4, bleed=4000)


@workload
def grown_mask(folder: Path, out: Path) -> Any:
    return lazyccd.grow_mask(full(folder), "BAD", 5)


@workload
def interpolated(folder: Path, out: Path) -> Any:
    return lazyccd.interpolate_bad_pixels(full(folder))


@workload
def bad_pixels(folder: Path, out: Path) -> Any:
    return lazyccd.add_mask(science(folder), lazyccd.ccdmask(lazyccd.open_fits(folder / "flat.fits")))


@workload
def bad_pixels_by_blocks(folder: Path, out: Path) -> Any:
    mask = lazyccd.ccdmask(lazyccd.open_fits(folder / "flat.fits"), byblocks=True, findbadcolumns=True)
    return lazyccd.add_mask(science(folder), mask)


@workload
def bad_pixels_iraf(folder: Path, out: Path) -> Any:
    return lazyccd.add_mask(science(folder), lazyccd.ccdmask(lazyccd.open_fits(folder / "flat.fits"), flavor="iraf"))


# ---- neighbourhoods


@workload
def median_small(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(full(folder), 5)


@workload
def median_small_one_chunk(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(full(folder, chunks=-1), 5)


@workload
def median_small_to_fits(folder: Path, out: Path) -> Any:
    return to_fits(lazyccd.median_filter(full(folder), 5), out)


@workload
def median_large_double(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.open_fits(folder / "double.fits"), 61)


@workload
def medians_in_a_row(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.median_filter(lazyccd.median_filter(science(folder), 3), 5), 7)


@workload
def deviation_box(folder: Path, out: Path) -> Any:
    return lazyccd.with_uncertainty(science(folder), lazyccd.background_deviation_box(science(folder), 50))


@workload
def deviation_filter(folder: Path, out: Path) -> Any:
    return lazyccd.with_uncertainty(science(folder), lazyccd.background_deviation_filter(science(folder), 3))


@workload
def reduced(folder: Path, out: Path) -> Any:
    return lazyccd.block_reduce(full(folder), 4)


@workload
def averaged(folder: Path, out: Path) -> Any:
    return lazyccd.block_average(science(folder), (3, 5))


@workload
def replicated(folder: Path, out: Path) -> Any:
    return lazyccd.block_replicate(lazyccd.block_average(science(folder), 4), 4)


@workload
def transformed(folder: Path, out: Path) -> Any:
    return lazyccd.transform_image(science(folder), np.flipud)


@workload
def transformed_with_halo(folder: Path, out: Path) -> Any:
    return lazyccd.transform_image(science(folder), np.square, halo=3)


@workload
def projected(folder: Path, out: Path) -> Any:
    side = science(folder).sizes["x"]
    return lazyccd.wcs_project(full(folder), turned(side), (side, side), order="lanczos3")


@workload
def projected_one_chunk(folder: Path, out: Path) -> Any:
    side = science(folder).sizes["x"]
    return lazyccd.wcs_project(full(folder, chunks=-1), turned(side), (side, side))


def turned(side: int) -> WCS:
    """Return the grid of the frames, turned by 20 degrees."""
    wcs = WCS(header(side))
    c, s = np.cos(0.35), np.sin(0.35)
    wcs.wcs.pc = [[c, -s], [s, c]]
    return wcs


# ---- cosmic rays


@workload
def rays_plain(folder: Path, out: Path) -> Any:
    return rays(science(folder))


@workload
def rays_full(folder: Path, out: Path) -> Any:
    return rays(full(folder), use_uncertainty=True)


@workload
def rays_full_to_fits(folder: Path, out: Path) -> Any:
    return to_fits(rays(full(folder)), out)


@workload
def rays_one_chunk(folder: Path, out: Path) -> Any:
    return rays(science(folder, chunks=-1))


@workload
def rays_gz(folder: Path, out: Path) -> Any:
    return rays(lazyccd.open_fits(folder / "science.fits.gz"))


@workload
def rays_noise_underestimated(folder: Path, out: Path) -> Any:
    return rays(full(folder), gain=1.0, readnoise=0.0, sigclip=0.6, objlim=0.5, sigfrac=0.1)


@workload
def rays_tree(folder: Path, out: Path) -> Any:
    return to_fits(rays(assembled(folder)), out)


@workload
def rays_tree_apart(folder: Path, out: Path) -> Any:
    return rays(amplifiers(folder))


@workload
def rays_double(folder: Path, out: Path) -> Any:
    return rays(lazyccd.open_fits(folder / "double.fits"))


@workload
def rays_convolve(folder: Path, out: Path) -> Any:
    return rays(science(folder), fsmode="convolve", sepmed=False)


@workload
def rays_astroscrappy(folder: Path, out: Path) -> Any:
    return rays(science(folder), engine="astroscrappy")


@workload
def rays_median(folder: Path, out: Path) -> Any:
    return lazyccd.cosmicray_median(full(folder), mbox=11, gbox=3, rbox=3)


@workload
def rays_median_iraf(folder: Path, out: Path) -> Any:
    return lazyccd.cosmicray_median(full(folder), mbox=5, flavor="iraf")


# ---- trees


def amplifiers(folder: Path) -> Any:
    """Return the amplifiers without overscan."""
    tree = lazyccd.subtract_overscan(lazyccd.open_mef(folder / "amplifiers.fits"), fits_section=Keyword("BIASSEC"))
    return lazyccd.trim_image(tree, Keyword("TRIMSEC"))


def assembled(folder: Path) -> Any:
    """Return the amplifiers as one image."""
    return lazyccd.assemble(amplifiers(folder), "DETSEC")


@workload
def tree_to_fits(folder: Path, out: Path) -> Any:
    return to_fits(amplifiers(folder), out)


@workload
def tree_assembled(folder: Path, out: Path) -> Any:
    return assembled(folder)


@workload
def tree_crosstalk(folder: Path, out: Path) -> Any:
    tree = lazyccd.open_mef(folder / "amplifiers.fits")
    names = list(tree.ccd.frames)
    return lazyccd.correct_crosstalk(tree, {a: {b: 1e-4 for b in names if b != a} for a in names})


# ---- stacks


@workload
def stack_median(folder: Path, out: Path) -> Any:
    return lazyccd.combine(stack(folder), method="median")


@workload
def stack_average_to_fits(folder: Path, out: Path) -> Any:
    return to_fits(lazyccd.combine(stack(folder)), out)


@workload
def stack_scaled(folder: Path, out: Path) -> Any:
    return lazyccd.combine(stack(folder), scale="median", reject=rejection.SigmaClip())


@workload
def stack_sigma_clip(folder: Path, out: Path) -> Any:
    return lazyccd.combine(stack(folder), sigma_clip=True, maps=("n_used", "n_rejected"))


@workload
def stack_smoothed(folder: Path, out: Path) -> Any:
    return lazyccd.combine(noisy(folder), weights="smoothed")


@workload
def stack_varclip(folder: Path, out: Path) -> Any:
    return lazyccd.combine(noisy(folder), reject=rejection.VarianceClip())


@workload
def stack_grown(folder: Path, out: Path) -> Any:
    return lazyccd.combine(stack(folder, 60), reject=rejection.SigmaClip(), grow=2)


@workload
def stack_iraf(folder: Path, out: Path) -> Any:
    return lazyccd.combine(stack(folder), reject="sigclip", flavor="iraf")


@workload
def stack_offsets(folder: Path, out: Path) -> Any:
    return lazyccd.combine(stack(folder, 60), offsets=[(k % 7, k % 5) for k in range(60)])


@workload
def stack_cleaned(folder: Path, out: Path) -> Any:
    return lazyccd.combine([rays(lazyccd.open_fits(path), background=None) for path in stack(folder, 40)])


@workload
def stack_of_plans(folder: Path, out: Path) -> Any:
    opened = [lazyccd.open_fits(path) for path in stack(folder)]
    return lazyccd.combine([lazyccd.divide(lazyccd.subtract(ds, 100.0 * u.adu), 1.5) for ds in opened], method="median")


@workload
def stack_large(folder: Path, out: Path) -> Any:
    return lazyccd.combine([calibrated(raw(folder), folder), full(folder), science(folder)], method="median")


@workload
def stack_filtered(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.combine(stack(folder), method="median"), 5)


@workload
def stack_combiner(folder: Path, out: Path) -> Any:
    combiner = lazyccd.Combiner([lazyccd.open_fits(path) for path in stack(folder, 60)])
    combiner.sigma_clipping()
    return combiner.average_combine()


def noisy(folder: Path) -> list[xr.Dataset]:
    """Return the frames of the deep stack with uncertainties."""
    return [lazyccd.create_deviation(lazyccd.open_fits(path), **NOISE) for path in stack(folder)]


@workload
def running_stack(folder: Path, out: Path) -> Any:
    running = lazyccd.RunningStack(out / "running")
    running.add(full(folder))
    return running_result(running, folder, out)


def running_result(running: Any, folder: Path, out: Path) -> Work:
    """Return the addition of one more frame, and the write of the result."""

    def run() -> None:
        running.add(full(folder), name="again")
        lazyccd.to_zarr(running.result(), out / "out.zarr")

    return Work(run, (full(folder),))


@workload
def coadded(folder: Path, out: Path) -> Any:
    side = fits.getheader(stack(folder)[0])["NAXIS1"]
    return lazyccd.coadd(stack(folder, 20), turned(side), (side, side), order="bilinear")


# ---- formats


@workload
def zarr_to_fits(folder: Path, out: Path) -> Any:
    return to_fits(lazyccd.open_zarr(folder / "full.zarr"), out)


@workload
def zarr_filtered(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.open_zarr(folder / "full.zarr"), 5)


@workload
def gz_copied(folder: Path, out: Path) -> Any:
    return lazyccd.open_fits(folder / "science.fits.gz")


@workload
def gz_in_chunks(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.open_fits(folder / "science.fits.gz", chunks=1024), 5)


@workload
def gz_filtered(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.open_fits(folder / "science.fits.gz"), 5)


@workload
def one_tile_in_chunks(folder: Path, out: Path) -> Any:
    return lazyccd.multiply(lazyccd.open_fits(folder / "one_tile.fits", chunks=512), 2.0)


@workload
def one_tile(folder: Path, out: Path) -> Any:
    return lazyccd.open_fits(folder / "one_tile.fits")


@workload
def rice(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.open_fits(folder / "rice.fits"), 5)


@workload
def to_rice(folder: Path, out: Path) -> Any:
    return to_fits(lazyccd.open_fits(folder / "rice.fits"), out, compress="RICE_1")


@workload
def to_gzip(folder: Path, out: Path) -> Any:
    return to_fits(full(folder), out, compress="GZIP_2")


@workload
def to_quantized(folder: Path, out: Path) -> Any:
    return to_fits(science(folder), out, compress="RICE_1", quantize=4)


@workload
def to_big_shards(folder: Path, out: Path) -> Any:
    ds = full(folder)
    return to_zarr(ds, out, shards=(ds.sizes["y"], ds.sizes["x"]))


@workload
def to_quantized_zarr(folder: Path, out: Path) -> Any:
    return to_zarr(science(folder), out, quantize=4)


@workload
def pyramid(folder: Path, out: Path) -> Any:
    def run() -> None:
        store = lazyccd.to_zarr(full(folder), out / "out.zarr")
        lazyccd.build_pyramid(store)

    return Work(run, (full(folder),))


# ---- arrays in memory


def in_memory(folder: Path) -> CCDData:
    """Return the frame as an image in memory."""
    pixels = np.array(fits.getdata(folder / "science.fits"), np.float32)
    return CCDData(pixels, unit="adu", meta=header(pixels.shape[0]))


@workload
def memory_filtered(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(lazyccd.from_ccddata(in_memory(folder)), 5)


@workload
def memory_rays(folder: Path, out: Path) -> Any:
    return rays(lazyccd.from_ccddata(in_memory(folder)))


@workload
def memory_persisted(folder: Path, out: Path) -> Any:
    return lazyccd.median_filter(full(folder).persist(), 5)


@workload
def memory_mask(folder: Path, out: Path) -> Any:
    ds = science(folder)
    mask: npt.NDArray[Any] = np.zeros((ds.sizes["y"], ds.sizes["x"]), bool)
    return lazyccd.median_filter(lazyccd.add_mask(ds, mask), 5)


# ---- numbers and pictures


@workload
def number_median(folder: Path, out: Path) -> Any:
    ds = full(folder)
    return Work(lambda: float(lazyccd.stats.median(ds)))


@workload
def number_clipped(folder: Path, out: Path) -> Any:
    ds = lazyccd.median_filter(science(folder), 3)
    return Work(lambda: float(lazyccd.stats.sigma_clipped(ds)["mean"]))


@workload
def number_of_gz(folder: Path, out: Path) -> Any:
    ds = lazyccd.open_fits(folder / "science.fits.gz")
    return Work(lambda: float(lazyccd.stats.mad_std(ds)))


@workload
def number_of_rays(folder: Path, out: Path) -> Any:
    ds = rays(full(folder))
    return Work(lambda: float(lazyccd.stats.median(ds)))


@workload
def number_settled(folder: Path, out: Path) -> Any:
    ds = rays(lazyccd.flat_correct(full(folder), str(folder / "flat.fits")))
    return Work(lambda: lazyccd.settle(ds))


@workload
def number_of_stack(folder: Path, out: Path) -> Any:
    ds = lazyccd.combine(stack(folder), method="median")
    return Work(lambda: float(lazyccd.stats.median(ds)))


def picture(ds: xr.Dataset, out: Path) -> Work:
    """Return the drawing of a frame."""

    def run() -> None:
        import matplotlib as mpl

        mpl.use("agg")
        ds.ccd.show().figure.savefig(out / "out.png")

    return Work(run)


@workload
def picture_of_full(folder: Path, out: Path) -> Any:
    return picture(full(folder), out)


@workload
def picture_of_chain(folder: Path, out: Path) -> Any:
    return picture(rays(calibrated(raw(folder), folder)), out)


@workload
def picture_of_gz(folder: Path, out: Path) -> Any:
    return picture(lazyccd.open_fits(folder / "science.fits.gz"), out)


@workload
def cutout(folder: Path, out: Path) -> Any:
    ds = rays(lazyccd.open_fits(folder / "science.fits.gz"), background=(1000.0, 100.0))
    part = ds.ccd.cutout(y=slice(100, 250), x=slice(100, 250))
    return Work(lambda: part.compute(), (part,))


TWINS.update(
    calibrate_one_chunk="calibrate",
    median_small_one_chunk="median_small",
    projected_one_chunk="projected",
    rays_one_chunk="rays_plain",
    rays_gz="rays_plain",
    gz_filtered="median_small",
    gz_copied="add_number",
    gz_in_chunks="median_small",
    to_big_shards="multiply_full",
)

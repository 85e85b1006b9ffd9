"""Operations compute nothing, and building a plan costs the same for any number of chunks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.modeling.models import Polynomial1D
from dask.highlevelgraph import HighLevelGraph
from distributed.protocol.pickle import dumps

import lazyccd
from lazyccd.testing.asserts import raise_if_computes
from lazyccd.testing.steps import READS, box_filter, formula_frame

GAIN = 1.7 * u.electron / u.adu
SIDE = 100_000
SHAPE = (64, 96)


def master(seed: int) -> xr.Dataset:
    """Return a master."""
    return formula_frame(SHAPE, (20, 96), seed=seed, low=1.0, high=2.0)


def process(ds: xr.Dataset) -> xr.Dataset:
    """Run the whole chain."""
    out: xr.Dataset = lazyccd.ccd_process(
        ds,
        oscan="[91:96,1:64]",
        error=True,
        gain=GAIN,
        readnoise=4 * u.electron,
        gain_corrected=False,
        master_bias=master(1),
        dark_frame=master(2),
        dark_exposure=1 * u.s,
        data_exposure=2 * u.s,
        dark_scale=True,
        master_flat=master(3),
        bad_pixel_mask=np.eye(*SHAPE),
    )
    return out


OPERATIONS: dict[str, Callable[[xr.Dataset], object]] = {
    "add": lambda ds: lazyccd.add(ds, master(1)),
    "subtract": lambda ds: lazyccd.subtract(ds, 1 * u.adu),
    "multiply": lambda ds: lazyccd.multiply(ds, master(1)),
    "divide": lambda ds: lazyccd.divide(ds, master(1)),
    "deviation": lambda ds: lazyccd.create_deviation(ds, GAIN, 4 * u.electron),
    "gain": lambda ds: lazyccd.gain_correct(ds, GAIN),
    "bias": lambda ds: lazyccd.subtract_bias(ds, master(1)),
    "dark": lambda ds: lazyccd.subtract_dark(ds, master(1), 1 * u.s, 2 * u.s, scale=True),
    "flat": lambda ds: lazyccd.flat_correct(ds, master(1)),
    "overscan": lambda ds: lazyccd.subtract_overscan(ds, fits_section="[91:96,1:64]"),
    "overscan model": lambda ds: lazyccd.subtract_overscan(ds, fits_section="[91:96,1:64]", model=Polynomial1D(2)),
    "trim": lambda ds: lazyccd.trim_image(ds, "[90:1,*:2]"),
    "process": process,
    "block reduce": lambda ds: lazyccd.block_reduce(ds, 2, np.median),
    "block average": lambda ds: lazyccd.block_average(ds, 2),
    "block replicate": lambda ds: lazyccd.block_replicate(ds, 2),
    "transform": lambda ds: lazyccd.transform_image(ds, np.fliplr),
    "transform in chunks": lambda ds: lazyccd.transform_image(ds, np.negative, halo=0),
    "neighbourhood": lambda ds: box_filter(ds, 2),
    "saturated": lambda ds: lazyccd.flag_saturated(ds, 900),
    "add mask": lambda ds: lazyccd.add_mask(ds, ds["data"] > 3),
    "with mask": lambda ds: lazyccd.with_mask(ds, ds["data"] > 3),
    "with uncertainty": lambda ds: lazyccd.with_uncertainty(ds, ds["data"]),
    "with unit": lambda ds: lazyccd.with_unit(ds, "electron"),
    "with header": lambda ds: lazyccd.with_header(ds, OBJECT="M 1"),
    "rechunk": lambda ds: lazyccd.rechunk(ds, 10),
    "cutout": lambda ds: ds.ccd.cutout(y=slice(3, 9)),
    "pixel": lambda ds: ds.ccd.pixel(3, 4),
    "bad": lambda ds: ds.ccd.bad,
    "is_flagged": lambda ds: ds.ccd.is_flagged("CR", "SAT"),
    "plan": lambda ds: str(ds.ccd.plan()) + ds.ccd.plan()._repr_html_(),
    "unit, header and WCS": lambda ds: (ds.ccd.unit, ds.ccd.header, ds.ccd.wcs),
    "slicing and arithmetic of xarray": lambda ds: lazyccd.divide(ds.assign(data=ds["data"] * 2).isel(y=slice(9)), 2),
    "text": lambda ds: repr(ds) + str(ds["data"]),
    "HTML": lambda ds: ds._repr_html_() + ds["data"]._repr_html_(),
}


# a frame that all steps were done on is the deepest plan to build on
@pytest.mark.filterwarnings("ignore::lazyccd.errors.RepeatedStepWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_building_computes_and_reads_nothing(name: str) -> None:
    """Operations, properties and the repr of a frame compute nothing and read no pixel."""
    ds = formula_frame(SHAPE, (20, 30))
    READS.clear()
    with raise_if_computes():
        for frame in (ds, process(ds)):
            try:
                OPERATIONS[name](frame)
            except lazyccd.errors.UnitError:
                assert frame is not ds
    assert not READS


def test_representations_make_no_tasks() -> None:
    """The text and HTML of a frame of 40 000 chunks are fast, because they do not list tasks."""
    ds = process_file(formula_frame((SIDE, SIDE), (500, 500), mask=False, uncertainty=False))
    with raise_if_computes():
        ds._repr_html_()
        start = time.perf_counter()
        text = repr(ds) + ds._repr_html_()
        assert time.perf_counter() - start < 0.5
    assert "dask.array<chunksize=(500, 500)" in text


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 20 GB that takes a few kB of the disk: 100 000 x 100 000 pixels of 16 bits, all 0."""
    path = tmp_path_factory.mktemp("sparse") / "big.fits"
    header = fits.Header(
        {"SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": SIDE, "NAXIS2": SIDE, "BZERO": 32768, "BSCALE": 1}
    )
    text = header.tostring().encode()
    with path.open("wb") as file:
        file.write(text)
        file.truncate(len(text) + -(-SIDE * SIDE * 2 // 2880) * 2880)
    return path


def process_file(ds: xr.Dataset) -> xr.Dataset:
    """Reduce a frame of any size with masters that are frames."""
    shape = ds.sizes["y"], ds.sizes["x"]
    ds = lazyccd.create_deviation(lazyccd.flag_saturated(ds, 60_000), GAIN, 4 * u.electron)
    ds = lazyccd.subtract_bias(ds, formula_frame(shape, (2048, 2048), seed=1))
    out: xr.Dataset = lazyccd.flat_correct(ds, formula_frame(shape, (2048, 2048), seed=2, low=0.9, high=1.1))
    return out


def sizes(path: Path, side: int) -> tuple[float, int, int]:
    """Return build time, bytes of the pickled graph, and number of chunks of a reduced file in chunks of a side."""
    opened = lazyccd.open_fits(path, chunks=side)
    process_file(opened)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        ds = process_file(opened)
        times.append(time.perf_counter() - start)
    graph = HighLevelGraph.merge(*(ds[name].data.dask for name in ds.data_vars))
    chunks = ds["data"].data.numblocks
    return min(times), len(dumps(graph)), chunks[0] * chunks[1]


def test_building_costs_the_same_for_any_number_of_chunks(sparse: Path) -> None:
    """For 100 and for 100 000 chunks, the chain builds in less than 50 ms, and its graph pickles to less than 100 kB."""
    few, many = sizes(sparse, 10_000), sizes(sparse, 316)
    assert few[2] == 100
    assert many[2] > 100_000
    assert max(few[0], many[0]) < 0.05
    assert max(few[1], many[1]) < 100_000
    # a graph holds the sizes of chunks along both axes, and nothing per chunk
    assert many[1] < few[1] + 5 * 2 * 317


def test_a_cutout_of_a_huge_file_reads_its_own_pixels(sparse: Path) -> None:
    """A cutout of a plan over 20 GB is fast, and has one task for each of its own chunks."""
    ds = process_file(lazyccd.open_fits(sparse))
    part = box_filter(lazyccd.multiply(lazyccd.open_fits(sparse), 2.0), 3).ccd.cutout(
        y=slice(70_000, 70_512), x=slice(50_000, 50_512)
    )
    part.compute()
    start = time.perf_counter()
    computed = part.compute()
    assert time.perf_counter() - start < 0.5
    assert float(computed["data"].max()) == 32768 * 2 * 49
    assert ds["data"].shape == (SIDE, SIDE)

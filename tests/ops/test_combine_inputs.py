"""What `combine` takes and leaves behind: files, headers, memory, bad input."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData

import lazyccd
from lazyccd import errors, from_ccddata
from lazyccd.ops import combine


@pytest.fixture
def stack(rng: np.random.Generator) -> list[CCDData]:
    """Return seven small images."""
    return [CCDData(values, unit="adu") for values in rng.normal(1000, 10, (7, 11, 13))]


def write(path: Path, value: float, shape: tuple[int, int] = (3, 4), **cards: Any) -> Path:
    """Write a small file."""
    fits.PrimaryHDU(np.full(shape, value, np.float32), fits.Header({"BUNIT": "adu", **cards})).writeto(path)
    return path


def test_paths_globs_lists_and_strings(tmp_path: Path) -> None:
    """Everything that names files, in the order that is given."""
    a, b = write(tmp_path / "a.fits", 1), write(tmp_path / "b.fits", 3)
    (tmp_path / "night.lst").write_text("b.fits\na.fits\n")
    store = lazyccd.to_zarr(lazyccd.open_fits(a), tmp_path / "c.zarr")
    ccd = CCDData(np.full((3, 4), 8.0), unit="adu")
    forms: dict[str, tuple[Any, float]] = {
        "list": ([str(a), b], 2),
        "array": (np.array([str(a), str(b)]), 2),
        "generator": ((p for p in (a, b)), 2),
        "one path": (a, 1),
        "one string": (str(b), 3),
        "commas": (f"{a},{b}[0]", 2),
        "glob": (str(tmp_path / "*.fits"), 2),
        "list file": (f"@{tmp_path / 'night.lst'}", 2),
        "store": ([store, f"{a}[0]", b], 5 / 3),
        "mixture": ([a, ccd, lazyccd.open_fits(b)], 4),
    }
    for form, (names, mean) in forms.items():
        result = combine(names)
        assert isinstance(result, xr.Dataset), form
        np.testing.assert_allclose(result["data"].values, mean, rtol=1e-7, err_msg=form)


def test_header_of_a_stack(tmp_path: Path) -> None:
    """True for all frames: names, times, and no keyword that differs."""
    common = {"INSTRUME": "CAM", "CRVAL1": 10.0, "CTYPE1": "RA---TAN"}
    a = write(tmp_path / "a.fits", 1, EXPTIME=10.0, AIRMASS=1.1, **{"DATE-OBS": "2024-03-02T01:00:00", **common})
    b = write(
        tmp_path / "b.fits",
        3,
        EXPTIME=30,
        AIRMASS=1.2,
        **{"DATE-OBS": "2024-03-01T23:00:00.5", **common, "CRVAL1": 10.1},
    )
    header = combine([lazyccd.multiply(lazyccd.open_fits(a), 2), b]).ccd.header
    assert [header[f"IMCMB00{i}"] for i in (1, 2)] == ["a.fits", "b.fits"]
    assert (header["NCOMBINE"], header["EXPTIME"], header["TOTEXP"]) == (2, 20.0, 40.0)
    assert (header["DATE-OBS"], header["INSTRUME"], header["CRVAL1"]) == ("2024-03-01T23:00:00.5", "CAM", 10.0)
    assert "AIRMASS" not in header
    assert "AIRMASS" in str(header["HISTORY"])
    assert combine([a, b], method="sum").ccd.header["EXPTIME"] == 40.0


@pytest.mark.parametrize("name", ["out.fits", "out.zarr"])
def test_output_file(tmp_path: Path, stack: list[CCDData], name: str) -> None:
    """Is written, replaced only if asked for, and what is returned reads from it."""
    path = tmp_path / name
    result = combine(stack, path, method="median")
    again = lazyccd.as_frame(path)
    np.testing.assert_array_equal(result.data, again["data"].values)
    assert again.ccd.header["NCOMBINE"] == 7
    with pytest.raises(errors.TargetExistsError, match=name):
        combine(stack, path)
    lazy = combine([from_ccddata(ccd) for ccd in stack], path, overwrite_output=True)
    np.testing.assert_allclose(lazy["data"].values, np.mean([ccd.data for ccd in stack], axis=0), rtol=1e-13)


def test_memory_of_a_task_is_bounded(tmp_path: Path) -> None:
    """The bands of many frames stay within the budget, however many frames there are."""
    paths = [write(tmp_path / f"{i}.fits", i, shape=(1024, 1024)) for i in range(16)]
    combine(paths[:2])["data"].compute()  # compiles
    peaks = []
    for count in (2, 16):
        result = combine(paths[:count], mem_limit=4e6)
        tracemalloc.start()
        try:
            result.compute(scheduler="synchronous")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # fourteen frames more, of 6 MiB each with its mask, add less than one
    assert peaks[1] - peaks[0] < 6 * 2**20


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "method": ({"method": "mode"}, errors.ParameterError, "'mode' must be one of average, median, sum"),
    "weights shape": ({"weights": [1, 2]}, errors.ParameterError, r"weights has shape \(2,\) and must have \(7,\)"),
    "weights sign": ({"weights": [-1] * 7}, errors.ParameterError, "must not be negative"),
    "weights zero": ({"weights": [0] * 7}, errors.ParameterError, "greater than 0"),
    "weights words": ({"weights": ["a"] * 7}, errors.ArgumentTypeError, "7 numbers"),
    "scale number": ({"scale": 2.0}, errors.ParameterError, r"scale has shape \(\)"),
    "scale nan": ({"scale": [np.nan] * 7}, errors.ParameterError, "finite"),
    "uncertainty": ({"uncertainty": "poisson"}, errors.ParameterError, "'poisson' must be None, propagated"),
    "propagated": ({"uncertainty": "propagated"}, errors.ParameterError, "frame 1 has no uncertainty"),
    "centre": ({"sigma_clip": True, "sigma_clip_func": np.max}, errors.ParameterError, "must be 'mean', 'median'"),
    "deviation": ({"sigma_clip": True, "sigma_clip_dev_func": "iqr"}, errors.ParameterError, "'std', 'mad_std'"),
    "threshold": ({"sigma_clip": True, "sigma_clip_low_thresh": 0}, errors.ParameterError, "greater than 0, or None"),
    "mem_limit": ({"mem_limit": 0}, errors.ParameterError, "mem_limit 0 must be greater than 0"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(stack: list[CCDData], case: str) -> None:
    """Are refused at the call, with both values."""
    options, error, message = BAD_ARGUMENTS[case]
    with pytest.raises(error, match=message):
        combine(stack, **options)


def test_bad_inputs(tmp_path: Path, stack: list[CCDData]) -> None:
    """No frames, no frame, no file, other shapes, other units."""
    with pytest.raises(errors.ParameterError, match="no frames"):
        combine([])
    with pytest.raises(errors.ArgumentTypeError, match="got a int"):
        combine(3)
    with pytest.raises(errors.ArgumentTypeError, match=r"frame 2 of combine\(\) is a int"):
        combine([stack[0], 3])
    with pytest.raises(errors.MissingFileError, match="nothing"):
        combine([tmp_path / "nothing.fits"])
    with pytest.raises(errors.MissingFileError, match="no file matches"):
        combine(str(tmp_path / "*.fits"))
    (tmp_path / "text.fits").write_text("not FITS")
    with pytest.raises(errors.FormatError, match=r"text\.fits"):
        combine([tmp_path / "text.fits"])
    with pytest.raises(
        errors.ShapeError, match=r"frame 2 shape \(1, 1\) does not match the shape \(11, 13\) of frame 1"
    ):
        combine([stack[0], CCDData([[1.0]], unit="adu")])
    with pytest.raises(errors.UnitError, match="frame 2 unit 'electron' does not match"):
        combine([stack[0], CCDData(stack[1].data, unit="electron")])


def test_bad_scale_function(stack: list[CCDData]) -> None:
    """Is named when its result is no number."""
    with pytest.raises(errors.ParameterError, match="one finite number"):
        combine(stack, scale=lambda plane: plane.mean(axis=0))


def test_thresholds_that_are_off_or_negative(stack: list[CCDData]) -> None:
    """None is no limit and a negative one counts as positive, as ccdproc's documentation says."""
    one_sided = combine(stack, sigma_clip=True, sigma_clip_low_thresh=None, sigma_clip_high_thresh=-1.5)
    values = np.array([ccd.data for ccd in stack])
    kept = values <= values.mean(axis=0) + 1.5 * values.std(axis=0)
    np.testing.assert_allclose(one_sided.data, (values * kept).sum(axis=0) / kept.sum(axis=0), rtol=1e-12)


def test_a_file_that_changes_is_named(tmp_path: Path) -> None:
    """Instead of being read as something else."""
    a, b = write(tmp_path / "a.fits", 1), write(tmp_path / "b.fits", 3)
    result = combine([a, b])
    b.unlink()
    write(tmp_path / "b.fits", 4)
    os.utime(b, ns=(1, 1))
    with pytest.raises(errors.SourceChangedError, match=r"b\.fits"):
        result.compute()


@pytest.mark.parametrize("output", ["out.fits", "out.zarr"])
def test_a_file_that_becomes_unreadable_during_the_run(tmp_path: Path, output: str) -> None:
    """Is named, and nothing has the name of the result; what was there before stays."""
    paths = [write(tmp_path / f"{i}.fits", i, shape=(600, 700)) for i in range(3)]
    combine(paths[:2], tmp_path / output)
    before = lazyccd.as_frame(tmp_path / output)["data"].values

    def cut_off(plane: Any) -> float:
        os.truncate(paths[2], 2880 + 1000)
        return float(plane.mean()) + 1

    with pytest.raises((errors.SourceChangedError, errors.FormatError), match=r"2\.fits"):
        combine(paths, tmp_path / "new.fits", scale=lambda plane: cut_off(plane) if plane[0, 0] == 0 else 1.0)
    paths[2].unlink()
    write(paths[2], 2, shape=(600, 700))
    with pytest.raises((errors.SourceChangedError, errors.FormatError), match=r"2\.fits"):
        combine(paths, tmp_path / output, overwrite_output=True, scale=cut_off)
    assert not (tmp_path / "new.fits").exists()
    np.testing.assert_array_equal(lazyccd.as_frame(tmp_path / output)["data"].values, before)

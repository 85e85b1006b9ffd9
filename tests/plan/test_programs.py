"""Steps that run as a program give the bits that they give one by one, whatever file, planes and chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyccd as lc
from lazyccd.kernels.program import CONSTANTS, TILE, Op, run
from lazyccd.ops.instrument.calibrate import add_noise
from lazyccd.plan import evaluate, programs
from lazyccd.plan.programs import StripProgram


@contextmanager
def made_programs(monkeypatch: pytest.MonkeyPatch, *, allowed: bool) -> Iterator[list[StripProgram]]:
    """Collect the programs that are made; none are if they are not allowed, so that each step runs by its own kernel."""
    found: list[StripProgram] = []
    make = programs.make_program

    def collect(*args: Any) -> StripProgram | None:
        made = make(*args) if allowed else None
        if made is not None:
            found.append(made)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(programs, "make_program", collect)
        patch.setattr(evaluate, "PROGRAM_PIXELS", 0)
        yield found


def both(frame: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> tuple[xr.Dataset, xr.Dataset, int]:
    """Return a frame computed by programs and by steps, and how many programs ran."""
    with dask.config.set(scheduler="synchronous"):
        with made_programs(monkeypatch, allowed=True) as found:
            programs = frame.compute()
        # NumPy warns of infinity less infinity, where the program does not
        with made_programs(monkeypatch, allowed=False), np.errstate(all="ignore"):
            steps = frame.compute()
    return programs, steps, len(found)


def assert_same_bits(a: xr.Dataset, b: xr.Dataset) -> None:
    """Compare all variables byte by byte, NaNs included."""
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name].values, b[name].values, strict=True)
        signs = [np.signbit(each[name].values) for each in (a, b)] if a[name].dtype.kind == "f" else []
        known = ~np.isnan(a[name].values) if signs else None
        assert not signs or np.array_equal(signs[0][known], signs[1][known])


RAW = {
    "uint16": lambda rng, shape: rng.integers(0, 65536, shape, dtype=np.uint16),
    "int16": lambda rng, shape: rng.integers(-300, 32767, shape, dtype=np.int16),
    "uint8": lambda rng, shape: rng.integers(0, 256, shape, dtype=np.uint8),
    "int32": lambda rng, shape: rng.integers(-(2**31), 2**31, shape, dtype=np.int32),
    "float32": lambda rng, shape: with_holes(rng, rng.normal(500, 300, shape)).astype(">f4"),
    "float64": lambda rng, shape: with_holes(rng, rng.normal(500, 300, shape)).astype(">f8"),
}
"""Pixels of raw frames by what is stored."""


def with_holes(rng: np.random.Generator, values: Any) -> Any:
    """Set some pixels to NaN, infinity and zeros of both signs."""
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
        values[rng.random(values.shape) < 0.02] = value
    return values


def master(folder: Path, name: str, rng: np.random.Generator, shape: tuple[int, int], draw: dict[str, Any]) -> Any:
    """Write a master with the planes that were drawn, and open it; one row or one column if that was drawn."""
    level = {"bias": 10.0, "dark": 5.0, "flat": 1.0}[name]
    hdus = [fits.PrimaryHDU(with_holes(rng, rng.normal(level, level / 3, shape)).astype(draw["masters"]))]
    hdus[0].header["EXPTIME"] = 60.0
    hdus[0].header["BUNIT"] = "electron"
    if draw["uncertainty"]:
        hdus.append(fits.ImageHDU(rng.uniform(0.1, 1, shape).astype(draw["masters"]), name="UNCERT"))
        hdus[-1].header["UTYPE"] = draw["uncertainty"]
    if draw["mask"]:
        hdus.append(fits.ImageHDU((rng.random(shape) < 0.1).astype(np.uint8), name="MASK"))
    fits.HDUList(hdus).writeto(folder / f"{name}.fits", overwrite=True)
    return lc.open_fits(folder / f"{name}.fits")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    draw=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "shape": st.tuples(st.integers(1, 90), st.one_of(st.integers(1, 60), st.just(TILE + 3))),
            "stored": st.sampled_from(sorted(RAW)),
            "masters": st.sampled_from([">f4", ">f8"]),
            "uncertainty": st.sampled_from(["", "StdDevUncertainty", "VarianceUncertainty", "InverseVariance"]),
            "mask": st.booleans(),
            "model": st.sampled_from([None, "median", "chebyshev"]),
            "min_value": st.sampled_from([None, 0.3]),
            "deviation": st.booleans(),
            "noise": st.sampled_from(["", "all", "reading"]),
            "saturate": st.booleans(),
            "dark": st.booleans(),
        }
    )
)
def test_a_calibration_has_the_bits_of_its_steps(
    draw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits and planes are those of the kernels of single steps, whatever file, planes and masters."""
    rng = np.random.default_rng(draw["seed"])
    ny, nx = draw["shape"]
    raw = RAW[draw["stored"]](rng, (ny, nx + 8))
    fits.writeto(tmp_path / "raw.fits", raw, fits.Header({"EXPTIME": 30.0, "BUNIT": "adu"}), overwrite=True)
    masters = {name: master(tmp_path, name, rng, (ny, nx), draw) for name in ("bias", "dark", "flat")}
    frame = lc.open_fits(tmp_path / "raw.fits")
    if draw["saturate"]:
        frame = lc.flag_saturated(frame, 3000 * u.adu)
    frame = lc.subtract_overscan(frame, fits_section=f"[{nx + 1}:{nx + 8},1:{ny}]", median=draw["model"] == "median")
    frame = lc.trim_image(frame, f"[1:{nx},1:{ny}]")
    if draw["deviation"]:
        frame = lc.create_deviation(frame, gain=1.5 * u.electron / u.adu, readnoise=5 * u.electron)
    frame = lc.gain_correct(frame, 1.5 * u.electron / u.adu)
    frame = lc.subtract_bias(frame, masters["bias"])
    if draw["noise"]:
        frame = add_noise(frame, gain=1.7, readnoise=4.3, poisson=draw["noise"] == "all")
    if draw["dark"]:
        frame = lc.subtract_dark(frame, masters["dark"], exposure_time="EXPTIME", exposure_unit=u.s, scale=True)
    frame = lc.flat_correct(frame, masters["flat"], min_value=draw["min_value"], norm_value=1.1)
    programs, steps, count = both(frame, monkeypatch)
    assert count > 0
    assert_same_bits(programs, steps)


OPERATIONS = {
    Op.ADD: lambda a, b, c, k: a + b,
    Op.SUBTRACT: lambda a, b, c, k: a - b,
    Op.MULTIPLY: lambda a, b, c, k: a * b,
    Op.DIVIDE: lambda a, b, c, k: a / b,
    Op.ADD_MULTIPLE: lambda a, b, c, k: a + b * k[0],
    Op.ADD_SQUARE_TIMES: lambda a, b, c, k: a + b * b * c,
    Op.DIVIDE_SQUARE: lambda a, b, c, k: a / (b * b),
    Op.ADD_NUMBER: lambda a, b, c, k: a + k[0],
    Op.MULTIPLY_NUMBER: lambda a, b, c, k: a * k[0],
    Op.DIVIDE_NUMBER: lambda a, b, c, k: a / k[0],
    Op.SQUARE: lambda a, b, c, k: a * a,
    Op.ROOT: lambda a, b, c, k: np.sqrt(a),
    Op.INVERSE: lambda a, b, c, k: 1 / a,
    Op.NORMALIZE: lambda a, b, c, k: np.where(a < k[0], k[0], a) / k[1],
    Op.DEVIATION: lambda a, b, c, k: (np.where(a * k[0] < 0, k[3], a * k[0]) + k[1]) / k[2],
}
"""What operations on numbers are, in NumPy."""


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("nx", [1, TILE, TILE + 1])
def test_an_operation_on_numbers_is_that_of_numpy(dtype: str, nx: int, rng: np.random.Generator) -> None:
    """Each operation on numbers rounds as NumPy does, for tiles that are whole, cut, and one pixel."""
    a, b, c = (with_holes(rng, rng.normal(0, 3, (2, nx))).astype(dtype) for _ in range(3))
    k = np.array([1.7, 0.3, 2.9, np.nan], dtype)
    load, store = (Op.LOAD_F4, Op.STORE_F4) if dtype == "f4" else (Op.LOAD_F8, Op.STORE_F8)
    for op, expected in OPERATIONS.items():
        out = np.empty_like(a)
        arrays = np.array([[each.ctypes.data, each.strides[0]] for each in (a, b, c, out)])
        code = np.array([[load, i, i, 0, 0, 0] for i in range(3)] + [[op, 3, 0, 1, 2, 0], [store, 3, 3, 0, 0, 0]])
        constants = np.zeros((5, CONSTANTS), dtype)
        constants[3] = k
        run(code, constants, arrays, 2, nx, np.zeros((4, TILE), dtype), np.zeros((1, TILE), np.uint32))
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(out, expected(a, b, c, k), err_msg=op.name, strict=True)


@pytest.mark.parametrize("planes", [["uncertainty"], ["mask"], ["data"], ["data", "uncertainty", "mask"]])
def test_planes_alone(planes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any planes of a calibration can be asked for, also variances alone of a step that has no data."""
    rng = np.random.default_rng(3)
    draw = {"masters": ">f4", "uncertainty": "StdDevUncertainty", "mask": True}
    bias = master(tmp_path, "bias", rng, (30, 20), draw)
    for frame in (lc.subtract(lc.multiply(bias, 2.0), bias), lc.flat_correct(lc.subtract(bias, bias), bias)):
        programs, steps, _ = both(frame[planes], monkeypatch)
        assert_same_bits(programs, steps)


@pytest.mark.parametrize("poisson", [True, False])
@pytest.mark.parametrize("readnoise", [0.0, 4.3])
def test_the_noise_of_a_night_is_part_of_its_program(
    poisson: bool, readnoise: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain of `lazyccd reduce` is one program from the files on, with the bits of its steps: also of -0, infinities and NaN."""
    rng = np.random.default_rng(8)
    bias = master(tmp_path, "bias", rng, (40, 30), {"masters": ">f4", "uncertainty": "StdDevUncertainty", "mask": True})
    fits.writeto(tmp_path / "raw.fits", with_holes(rng, rng.normal(5, 9, (40, 30))).astype(">f4"))
    frame = lc.flag_saturated(lc.open_fits(tmp_path / "raw.fits", unit="electron"), 20.0)
    frame = lc.subtract_bias(frame, bias)
    frame = lc.flat_correct(add_noise(frame, gain=1.7, readnoise=readnoise, poisson=poisson), bias, norm_value=1.0)
    with dask.config.set(scheduler="synchronous"), made_programs(monkeypatch, allowed=True) as found:
        frame.compute()
    # what is not a part of the program are files whose bytes it does not decode itself
    assert found
    assert all(len(each.before) < 5 for each in found)
    by_program, by_steps, _ = both(frame, monkeypatch)
    assert_same_bits(by_program, by_steps)


def test_chosen_levels_of_an_overscan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels that were chosen before are a parameter of their step, and no input of it."""
    pixels = np.random.default_rng(5).normal(300, 5, (48, 40)).astype(np.uint16)
    pixels += np.arange(48, dtype=np.uint16)[:, None] * 3
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    ds = lc.flag_saturated(lc.open_fits(tmp_path / "a.fits", unit="adu"), 6e4)
    ds = lc.subtract_overscan(ds, fits_section="[33:40,:]", overscan_axis=None, statistic="auto")
    ds = lc.gain_correct(lc.trim_image(ds, "[1:32,:]"), 1.5 * u.electron / u.adu)
    by_program, by_steps, count = both(ds, monkeypatch)
    assert count
    assert_same_bits(by_program, by_steps)


def test_strips_that_a_program_makes_alone_are_higher(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the same bits, the last one too, and those of steps one by one stay low."""
    for name in ("raw", "bias"):
        fits.writeto(tmp_path / f"{name}.fits", rng.normal(100, 3, (1000, 700)).astype(np.float32))
    frame = lc.subtract_bias(
        lc.open_fits(tmp_path / "raw.fits", unit="adu"), lc.open_fits(tmp_path / "bias.fits", unit="adu")
    )
    frame = lc.gain_correct(frame, 2.0 * u.electron / u.adu)
    heights: dict[bool, list[int]] = {True: [], False: []}
    run_strip = evaluate.Evaluation._strip

    def collect(self: Any, calls: Any, request: Any, *more: Any) -> Any:
        heights[allowed].append(request.region.shape.y)
        return run_strip(self, calls, request, *more)

    monkeypatch.setattr(evaluate.Evaluation, "_strip", collect)
    results = []
    for allowed in heights:
        with dask.config.set(scheduler="synchronous"), made_programs(monkeypatch, allowed=allowed):
            results.append(frame.compute())
    assert_same_bits(*results)
    high = evaluate.HIGH_STRIPS * heights[False][0]
    assert heights[True] == [high, 1000 - high]

"""Bad input is refused at the call, by an error that names what, both values, and the way out."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.modeling import models
from astropy.nddata import CCDData

import lazyccd
from lazyccd.errors import LazyCCDError, ParameterError
from lazyccd.frame.tree import make_tree
from lazyccd.testing.asserts import raise_if_computes


def frame(shape: tuple[int, int] = (20, 30), unit: str = "adu", **meta: Any) -> xr.Dataset:
    """Return a lazy frame."""
    return lazyccd.from_ccddata(CCDData(np.ones(shape), unit=unit, meta=meta))


ADU = CCDData(np.ones((20, 30)), unit="adu")

GAIN = lazyccd.Keyword("GAIN", unit=u.electron / u.adu)

CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "exposure key missing in the frame": (
        lambda: lazyccd.subtract_dark(frame(), frame(EXPTIME=3.0), exposure_time="EXPTIME", exposure_unit=u.s),
        KeyError,
        r"EXPTIME.*frame|frame.*EXPTIME",
    ),
    "exposure key missing in the dark": (
        lambda: lazyccd.subtract_dark(frame(EXPTIME=3.0), frame(), exposure_time="EXPTIME", exposure_unit=u.s),
        KeyError,
        r"EXPTIME.*dark|dark.*EXPTIME",
    ),
    "exposure without unit": (
        lambda: lazyccd.subtract_dark(frame(EXPTIME=3.0), frame(EXPTIME=3.0), exposure_time="EXPTIME"),
        TypeError,
        "exposure_unit",
    ),
    "exposures not given": (lambda: lazyccd.subtract_dark(frame(), frame()), TypeError, "exposure"),
    "units that do not convert": (
        lambda: lazyccd.subtract_bias(frame(), frame(unit="electron")),
        ValueError,
        "'?electron'?.*'?adu|'?adu.*'?electron",
    ),
    "shapes that differ": (
        lambda: lazyccd.subtract_bias(frame(), frame((20, 31))),
        ValueError,
        r"\(?20.*30.*31|31.*30",
    ),
    "block of text": (lambda: lazyccd.block_reduce(frame(), "text"), TypeError, "block_size 'text' must be one or two"),
    "block without end": (
        lambda: lazyccd.block_average(frame(), np.inf),
        ValueError,
        "block_size inf must be one or two",
    ),
    "plane without a name": (lambda: lazyccd.add_mask(frame(), ADU.data, plane=7), TypeError, "plane 7 is a int"),
    "norm that is no number": (
        lambda: lazyccd.flat_correct(frame(), ADU, norm_value=[1, 2]),
        TypeError,
        "norm_value .* single",
    ),
    "floor that is no number": (
        lambda: lazyccd.flat_correct(frame(), ADU, min_value={}),
        TypeError,
        "min_value .* single",
    ),
    "gain map of another shape": (
        lambda: lazyccd.gain_correct(frame(), [1, 2]),
        ValueError,
        r"gain shape \(2,\) .*\(20, 30\)",
    ),
    "gain that is nothing": (lambda: lazyccd.gain_correct(frame(), object()), TypeError, "must be a Quantity such as"),
    "coefficients that are none": (
        lambda: lazyccd.correct_linearity(frame(SUBBIAS="done"), 3),
        TypeError,
        "coefficients 3 must be a list",
    ),
    "sections that are none": (
        lambda: lazyccd.split_amplifiers(frame(), 3),
        TypeError,
        "sections is a int and must be a mapping",
    ),
    "axis that is a list": (lambda: lazyccd.interpolate_bad_pixels(frame(), axis=["y"]), ValueError, "axis"),
    "gain of 0": (lambda: lazyccd.gain_correct(frame(), 0.0), ValueError, "gain 0.0.*above 0"),
    "gain below 0": (
        lambda: lazyccd.gain_correct(frame(), -2 * u.electron / u.adu),
        ValueError,
        "gain -2.0 electron / adu.*above 0",
    ),
    "gain that is not finite": (lambda: lazyccd.gain_correct(frame(), np.inf), ValueError, "gain inf.*above 0"),
    "gain that is true": (lambda: lazyccd.gain_correct(frame(), True), ValueError, "gain True.*above 0"),
    "gain that a header does not know": (
        lambda: lazyccd.gain_correct(frame(GAIN="unknown"), GAIN),
        ValueError,
        "'GAIN' has the value 'unknown', which is not known",
    ),
    "gain that is true in a header": (
        lambda: lazyccd.gain_correct(frame(GAIN=True), GAIN),
        ValueError,
        "'GAIN' has the value True, which is not a number",
    ),
    "gains of two amplifiers": (
        lambda: lazyccd.gain_correct(frame(GAIN="[1.5, 2]"), GAIN),
        ValueError,
        r"'GAIN' has the value '\[1.5, 2\]', which lists 2 values",
    ),
    "section beyond the image": (lambda: lazyccd.trim_image(frame(), "[1:31,1:20]"), ValueError, r"\[1:31,1:20\].*30"),
    "overscan beyond the image": (
        lambda: lazyccd.subtract_overscan(frame(), fits_section="[25:40,1:20]"),
        ValueError,
        r"\[25:40,1:20\].*30",
    ),
    "section from 0": (lambda: lazyccd.trim_image(frame(), "[0:10,1:20]"), ValueError, r"\[0:10,1:20\]"),
    "not a section": (lambda: lazyccd.trim_image(frame(), "1:10,1:20"), ValueError, "1:10,1:20"),
    "section that is no text": (lambda: lazyccd.trim_image(frame(), 5), TypeError, "5|int"),  # type: ignore[arg-type]
    "gain without unit": (
        lambda: lazyccd.create_deviation(frame(), gain=1.5, readnoise=5 * u.electron),  # type: ignore[arg-type]
        TypeError,
        r"1\.5.*electron ?/ ?u?\.?adu",
    ),
    "read noise without unit": (
        lambda: lazyccd.create_deviation(frame(), readnoise=5),  # type: ignore[arg-type]
        TypeError,
        "readnoise 5",
    ),
    "deviation by gains": (
        lambda: lazyccd.create_deviation(frame(), gain=[1, 2] * u.electron / u.adu, readnoise=5 * u.electron),
        TypeError,
        r"gain of shape \(2,\) must be a single number",
    ),
    "read noise below 0": (
        lambda: lazyccd.create_deviation(frame(), gain=2 * u.electron / u.adu, readnoise=-5 * u.electron),
        ValueError,
        "readnoise -5.0 electron must be a finite number not below 0",
    ),
    "read noise missing": (lambda: lazyccd.create_deviation(frame()), ValueError, "readnoise"),
    "read noise in another unit": (
        lambda: lazyccd.create_deviation(frame(), gain=2 * u.electron / u.adu, readnoise=5 * u.adu),
        ValueError,
        "electron.*adu",
    ),
    "overscan model that is not linear": (
        lambda: lazyccd.subtract_overscan(frame(), fits_section="[25:30,1:20]", model=models.Gaussian1D()),
        ValueError,
        "Gaussian1D.*linear",
    ),
    "overscan twice": (
        lambda: lazyccd.subtract_overscan(frame(), overscan=frame(), fits_section="[25:30,1:20]"),
        TypeError,
        "overscan.*fits_section",
    ),
    "norm of a flat not above 0": (
        lambda: lazyccd.flat_correct(frame(), frame(), norm_value=0),
        ValueError,
        "norm_value 0",
    ),
    "mask of floats": (
        lambda: lazyccd.add(frame().assign(mask=(("y", "x"), np.zeros((20, 30)))), 1 * u.adu),
        ValueError,
        "mask.*float64",
    ),
    "data that are not numbers": (
        lambda: lazyccd.add(frame().assign(data=(("y", "x"), np.full((20, 30), "a"))), 1 * u.adu),
        ValueError,
        "data.*<U1|str",
    ),
    "uncertainty of another shape": (
        lambda: lazyccd.with_uncertainty(frame(), np.ones((20, 31))),
        ValueError,
        "31",
    ),
    "unknown plane": (lambda: frame().ccd.is_flagged("COSMIC"), ValueError, "COSMIC.*BAD, SAT"),
    "block larger than the image": (lambda: lazyccd.block_reduce(frame(), (21, 2)), ValueError, "21.*20"),
    "block of 0": (lambda: lazyccd.block_average(frame(), 0), ValueError, "0"),
    "transform that is no function": (lambda: lazyccd.transform_image(frame(), 3), TypeError, "3.*callable"),  # type: ignore[arg-type]
    "an array as a frame": (lambda: lazyccd.trim_image(np.ones((3, 4)), "[1:2,1:2]"), TypeError, "ndarray"),  # type: ignore[arg-type]
    "a path that is not there": (
        lambda: lazyccd.subtract_bias(frame(), "nowhere.fits"),
        FileNotFoundError,
        "nowhere.fits",
    ),
    "error without gain": (lambda: lazyccd.ccd_process(frame(), error=True), ValueError, "gain.*readnoise"),
}


ELECTRONS = u.electron / u.adu

GAINS: dict[str, Callable[[float], Any]] = {
    "quantity": lambda gain: lazyccd.create_deviation(frame(), gain * ELECTRONS, 5 * u.electron),
    "keyword": lambda gain: lazyccd.create_deviation(frame(GAIN=gain), GAIN, 5 * u.electron),
    "mapping": lambda gain: lazyccd.create_deviation(
        make_tree({"a": frame(), "b": frame()}, {}), {"a": 1 * ELECTRONS, "b": gain * ELECTRONS}, 5 * u.electron
    ),
    "all at once": lambda gain: lazyccd.ccd_process(
        frame(), error=True, gain=gain * ELECTRONS, readnoise=5 * u.electron
    ),
    "corrected": lambda gain: lazyccd.gain_correct(frame(), gain * ELECTRONS),
    "cosmic rays": lambda gain: lazyccd.cosmicray_lacosmic(frame(), gain=gain * ELECTRONS),
}


@pytest.mark.parametrize("gain", [0.0, -1.5])
@pytest.mark.parametrize("form", GAINS)
def test_gains_not_above_zero(form: str, gain: float) -> None:
    """One rule for all operations that take a gain, however it is given."""
    with pytest.raises(
        ParameterError, match=f"gain {gain} electron / adu must be a finite number above 0; give the gain"
    ):
        GAINS[form](gain)


@pytest.mark.parametrize("text", ["1,5", "1.5", "[1.5]"])
def test_keywords_without_a_unit(text: str) -> None:
    """A number in text is that number, and logged as it; a section stays text, whatever it looks like."""
    ccd = frame(GAIN=text, ONE="[5,5]")
    corrected = lazyccd.gain_correct(ccd, lazyccd.Keyword("GAIN"), gain_unit=ELECTRONS)
    assert float(corrected["data"][0, 0]) == 1.5
    assert corrected.ccd.header["GAINCOR"] == "ccd=<CCDData>, gain=1.5, gain_unit=electron / adu"
    cleaned = lazyccd.cosmicray_lacosmic(ccd, gain=lazyccd.Keyword("GAIN"))
    assert cleaned.ccd.unit == u.electron
    assert lazyccd.trim_image(ccd, lazyccd.Keyword("ONE"))["data"].shape == (1, 1)


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    """The error comes before anything is computed, belongs to the library, and is the matching built-in one."""
    call, kind, message = CALLS[name]
    with raise_if_computes(), pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, LazyCCDError)
    text = str(caught.value)
    assert re.search(message, text), text
    assert re.search(r"[;,:] | must ", text), f"says no way out: {text}"


def write(path: Path, *hdus: Any) -> Path:
    """Write a FITS file."""
    fits.HDUList([*hdus]).writeto(path)
    return path


def test_truncated_file(tmp_path: Path) -> None:
    """The length that the header says and the file's are named."""
    path = write(tmp_path / "cut.fits", fits.PrimaryHDU(np.ones((100, 100), "f4")))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(OSError, match=r"cut\.fits.*(43200|42880|40000).*20000|cut\.fits.*20000.*4") as caught:
        lazyccd.open_fits(path)
    assert isinstance(caught.value, LazyCCDError)


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 500, b"\x89PNG\r\n" + bytes(4000)])
def test_not_fits(tmp_path: Path, content: bytes) -> None:
    """Something else is named as not FITS."""
    path = tmp_path / "picture.fits"
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"picture\.fits.*FITS") as caught:
        lazyccd.open_fits(path)
    assert isinstance(caught.value, LazyCCDError)


def test_no_image(tmp_path: Path) -> None:
    """A file of tables says which HDUs it has."""
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(3))], name="CAT")
    path = write(tmp_path / "table.fits", fits.PrimaryHDU(), table)
    with pytest.raises(OSError, match=r"(?s)table\.fits has no image.*CAT.*table") as caught:
        lazyccd.open_fits(path)
    assert isinstance(caught.value, LazyCCDError)


@pytest.mark.parametrize("shape", [(30,), (3, 20, 30)])
def test_wrong_number_of_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """NAXIS and what an image needs are named; a cube of one plane is an image."""
    path = write(tmp_path / "axes.fits", fits.PrimaryHDU(np.ones(shape, "f4")))
    with pytest.raises(
        OSError, match=rf"axes\.fits\[0\] has NAXIS = {len(shape)}, shape .* must have two axes;"
    ) as caught:
        lazyccd.open_fits(path)
    assert isinstance(caught.value, LazyCCDError)
    one = write(tmp_path / "one.fits", fits.PrimaryHDU(np.ones((1, 20, 30), "f4")))
    assert dict(lazyccd.open_fits(one).sizes) == {"y": 20, "x": 30}


@pytest.mark.parametrize("writer", ["to_fits", "to_zarr"])
def test_output_exists(tmp_path: Path, writer: str) -> None:
    """What is there stays as it is, unless told otherwise."""
    target = tmp_path / "out"
    write_to = getattr(lazyccd, writer)
    write_to(frame(), target)
    before = sorted((p.relative_to(target), p.read_bytes()) for p in [*target.rglob("*"), target] if p.is_file())
    with pytest.raises(FileExistsError, match=r"out exists; pass overwrite=True") as caught:
        write_to(lazyccd.add(frame(), 1 * u.adu), target)
    assert isinstance(caught.value, LazyCCDError)
    assert before == sorted(
        (p.relative_to(target), p.read_bytes()) for p in [*target.rglob("*"), target] if p.is_file()
    )
    write_to(lazyccd.add(frame(), 1 * u.adu), target, overwrite=True)


NO_SPACE = """
import resource, signal, sys
import numpy as np
import lazyccd
from astropy.nddata import CCDData

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ds = lazyccd.from_ccddata(CCDData(np.random.default_rng(0).random((700, 800)), unit="adu"))
lazyccd.{writer}(lazyccd.block_average(ds, 100), sys.argv[1] + ".warm")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    lazyccd.{writer}(ds, sys.argv[1])
except lazyccd.errors.WriteError as error:
    print(isinstance(error, OSError), error)
"""


@pytest.mark.parametrize("writer", ["to_fits", "to_zarr"])
def test_no_space_left(tmp_path: Path, writer: str) -> None:
    """A file that may not grow: the error names it, and nothing has or keeps the final name or the unfinished one."""
    target = tmp_path / "big"
    command = [sys.executable, "-c", NO_SPACE.format(writer=writer), str(target)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("True")
    assert "big" in said
    assert [p.name for p in tmp_path.iterdir()] == ["big.warm"]


@pytest.mark.parametrize("writer", ["to_fits", "to_zarr"])
def test_memory_limit_too_small(tmp_path: Path, writer: str) -> None:
    """Where the usual regions do not fit, smaller ones are written with the same pixels; where none does, nothing is left."""
    rng = np.random.default_rng(0)
    pixels = rng.random((3000, 3000), np.float32)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu"})).writeto(tmp_path / "in.fits")
    ds = lazyccd.open_fits(tmp_path / "in.fits")
    with dask.config.set({"lazyccd.memory-limit": "250MiB", "scheduler": "sync"}):
        with pytest.raises(MemoryError, match=r"memory limit is 250\.00 MiB") as caught:
            getattr(lazyccd, writer)(ds, tmp_path / "out")
        assert isinstance(caught.value, LazyCCDError)
        assert list(tmp_path.glob("out*")) == []
    with dask.config.set({"lazyccd.memory-limit": "300MiB", "scheduler": "sync"}):
        getattr(lazyccd, writer)(ds, tmp_path / "out")
    opened = lazyccd.open_fits(tmp_path / "out") if writer == "to_fits" else lazyccd.open_zarr(tmp_path / "out")
    np.testing.assert_array_equal(opened["data"].values, pixels)


@pytest.mark.parametrize(("text", "gain"), [("1,5", 1.5), ("[1.5]", 1.5), (" 2.5 ", 2.5), (2, 2.0)])
def test_gains_as_headers_have_them(text: Any, gain: float) -> None:
    """Decimal commas and lists of one are read; one that cannot be is said with its keyword."""
    assert float(lazyccd.gain_correct(frame(GAIN=text), GAIN)["data"][0, 0]) == gain
    with pytest.raises(LazyCCDError, match=r"gain 0\.0 electron / adu") as caught:
        lazyccd.gain_correct(frame(GAIN=0.0), GAIN)
    assert caught.value.__notes__ == ["gain is the keyword 'GAIN' of the header"]

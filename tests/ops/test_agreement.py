"""Frames of a clipped mosaic that are off the flux scale that they state: named, at little cost, and without false alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import lazyccd
from lazyccd.errors import ParameterError
from lazyccd.ops.mosaic.agreement import MOST_PIXELS
from lazyccd.pixel_history import with_inputs
from lazyccd.plan.steps import Stack
from lazyccd.rejection import Blotted

Array = npt.NDArray[Any]
SIDE = 240
RNG = np.random.default_rng(5)
STARS = RNG.uniform(0, 900, (1500, 2)), RNG.pareto(1.0, 1500) * 4000 + 2000


def make_wcs(y: float, x: float, angle: float = 0.0) -> WCS:
    """Return a WCS whose pixel (y, x) is at the reference point."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10, 20]
    wcs.wcs.crpix = [x + 1, y + 1]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = 1e-4 * np.array([[-c, s], [s, c]])
    wcs.wcs.set()
    return wcs


TARGET, GRID = make_wcs(0, 0), (300, 900)


def write_frame(path: Path, corner: tuple[int, int], factor: float = 1.0, fwhm: float = 3.0, angle: float = 0.0) -> str:
    """Write a frame of stars with noise of 4 and no uncertainty, whose first pixel is at a place of the grid; return its name."""
    rng = np.random.default_rng([corner[0], corner[1], int(10 * fwhm)])
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    # pixel (0, 0) of the grid, turned about the middle of the frame
    origin = np.array([[c, -s], [s, c]]) @ -(np.array(corner) + SIDE / 2) + SIDE / 2
    wcs = make_wcs(*origin, angle)
    data = rng.normal(200, 4, (SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE]
    sigma = fwhm / 2.3548
    x_of, y_of = wcs.world_to_pixel(TARGET.pixel_to_world(STARS[0][:, 1], STARS[0][:, 0]))
    for sy, sx, flux in zip(y_of, x_of, STARS[1], strict=True):
        if not (-20 < sy < SIDE + 20 and -20 < sx < SIDE + 20):
            continue
        box = (slice(max(int(sy) - 20, 0), max(int(sy) + 21, 0)), slice(max(int(sx) - 20, 0), max(int(sx) + 21, 0)))
        r2 = (y[box] - sy) ** 2 + (x[box] - sx) ** 2
        data[box] += factor * flux * np.exp(-r2 / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    fits.writeto(path, data.astype(np.float32), wcs.to_header())
    return str(path)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return a row of five frames, of which the last is 1.5 times as bright as it states."""
    folder = tmp_path_factory.mktemp("frames")
    angles = (0, 30, 90, -20, 0)
    corners = ((10, 10), (20, 210), (50, 300), (40, 400), (30, 460))
    return [
        write_frame(folder / f"f{k}.fits", corner, 1.5 if k == 4 else 1.0, angle=angle)
        for k, (corner, angle) in enumerate(zip(corners, angles, strict=True))
    ]


@pytest.mark.parametrize("reject", ["clipped", Blotted()])
def test_a_frame_off_its_scale_is_named(names: list[str], reject: Any) -> None:
    """Of frames without uncertainties too; the scale that is right makes a mosaic, and so does a mean without rejection."""
    with pytest.raises(ParameterError, match=r"f4.fits\) states the flux scale 1, .* 1\.[45]\d+ \+- 0\.0\d+ times"):
        lazyccd.coadd(names, TARGET, GRID, unit="adu", reject=reject).compute()
    right = lazyccd.coadd(names, TARGET, GRID, unit="adu", reject=reject, flux_scale=[1, 1, 1, 1, 1 / 1.5])
    assert np.isfinite(right["data"].values).any()
    assert np.isfinite(lazyccd.coadd(names, TARGET, GRID, unit="adu", reject=None)["data"].values).any()


def test_a_cut_out_is_judged_by_its_own_frames(names: list[str], tmp_path: Path) -> None:
    """It needs no frame that lies elsewhere, not even of those that its frames overlap with."""
    copies = [str(tmp_path / Path(name).name) for name in names]
    for name, copy in zip(names, copies, strict=True):
        Path(copy).write_bytes(Path(name).read_bytes())
    mosaic = lazyccd.coadd(copies, TARGET, GRID, unit="adu")
    Path(copies[4]).unlink()
    part = mosaic.ccd.cutout(y=slice(40, 90), x=slice(20, 200)).compute(scheduler="sync")
    assert np.isfinite(part["data"].values).any()
    assert len(mosaic.ccd.frames_at((100, 100))) == 1
    with pytest.raises(FileNotFoundError):
        mosaic.ccd.cutout(y=slice(150, 160), x=slice(500, 520)).compute(scheduler="sync")


def test_seeing_and_noise_are_no_error(tmp_path: Path) -> None:
    """Frames with stars of 2 and 6 pixels FWHM agree, and nothing is said of frames without stars."""
    sharp = [write_frame(tmp_path / f"s{k}.fits", (10 + k, 300), fwhm=2 + 2 * k) for k in range(3)]
    assert np.isfinite(lazyccd.coadd(sharp, TARGET, GRID, unit="adu")["data"].values).any()
    for k in range(2):
        empty = np.random.default_rng(k).normal(100 * k, 1 + k, (100, 100))
        fits.writeto(tmp_path / f"e{k}.fits", empty, TARGET.to_header())
    mosaic = lazyccd.coadd(str(tmp_path / "e?.fits"), unit="adu")
    assert np.isfinite(mosaic["data"].values).any()


def test_a_sample_is_bounded(tmp_path: Path) -> None:
    """Of frames of 64 million pixels about a million each is looked at, in the same places of the sky."""
    side, places = 8000, []
    for k, x in enumerate((0, 3000)):
        header = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": side, "NAXIS2": side})
        header.update(make_wcs(0, -x).to_header())
        with (tmp_path / f"{k}.fits").open("wb") as file:
            file.write(header.tostring().encode())
            file.truncate(len(header.tostring()) + 4 * side**2)  # a file of holes: no pixel is read here
    step = with_inputs(lazyccd.coadd(str(tmp_path / "?.fits"), TARGET, (side, 11000), unit="adu")).plan
    assert isinstance(step, Stack)
    for scalar in (dict(step.scalars)[name] for name in step.own_scalars):
        assert scalar.reduction is not None
        assert 0.3 * MOST_PIXELS < sum(part.size for part in scalar.reduction.parts) < 2 * MOST_PIXELS
        places.append({square for _, square in dict(scalar.reduction.params)["squares"]})
    assert len(places[0] & places[1]) > 1

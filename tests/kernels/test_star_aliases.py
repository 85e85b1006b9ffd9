"""What resampling does to the flux and the place of a star, from the Fourier transform of the kernel, against measurements.

Pixels of the output sample the interpolated image at the points of a lattice, so its spectrum repeats at the whole frequencies q of that
lattice. A sum over all of these pixels is right but for what the spectrum has at each q other than 0; a first moment, but for the slope of the
spectrum there. On the axes of the input q is no whole frequency when the grid is turned, and the kernel is not 0. At 45 degrees the first q
lies at 0.71 along both axes, within what six pixels need to fall from 1 to 0, and a star of 1.5 pixels FWHM still has a fifth of its
light at the alias of that frequency. So the place of such a star is wrong by up to 0.003 pixels, whatever the estimator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.wcs.utils import pixel_to_pixel

import lazyccd
from lazyccd.kernels.resample.weights import PHASES, quantize_width, table
from tests.ops.test_wcs_project import frame, stars, tangent

Array = npt.NDArray[Any]

FREQUENCIES = np.linspace(0, 4.2, 1051)
"""Cycles per pixel at which transforms are tabulated."""

SIGMAS_OF_FWHM = 2.3548


def transform(kernel: str) -> tuple[Array, Array]:
    """Return the Fourier transform of a kernel as it is tabulated, and its slope."""
    weights = table(kernel, 1.0, "float64")[:PHASES:32]
    number = weights.shape[1]
    distances = np.arange(number) - (number // 2 - 1) - np.arange(0, PHASES, 32)[:, None] / PHASES
    phase = 2 * np.pi * FREQUENCIES[:, None] * distances.ravel()
    even = weights.ravel() / len(weights)
    return np.cos(phase) @ even, -(2 * np.pi * distances.ravel() * np.sin(phase)) @ even


def profile(frequency: Array, fwhm: float) -> Array:
    """Return the transform of a Gaussian star along an axis, integrated over pixels."""
    return np.asarray(
        np.exp(-2 * (np.pi * fwhm / SIGMAS_OF_FWHM * frequency) ** 2) * np.sinc(frequency),
    )


def slope(frequency: Array, fwhm: float) -> Array:
    """Return the slope of `profile`."""
    return (profile(frequency + 1e-5, fwhm) - profile(frequency - 1e-5, fwhm)) / 2e-5


def bounds(kernel: str, fwhm: float, scale: float, angle: float) -> tuple[float, float]:
    """Return the largest errors of the flux, and of the place along an axis in pixels, over all places of a star.

    Pixels of the place are those of the output if these are larger.
    """
    values, slopes = transform(kernel)
    width = float(quantize_width(np.array([scale]))[0])
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    orders = np.array([(i, j) for i in range(-4, 5) for j in range(-4, 5) if (i, j) > (0, 0)]) / scale
    at = [cosine * orders[:, 0] - sine * orders[:, 1], sine * orders[:, 0] + cosine * orders[:, 1]]
    within = np.maximum(*np.abs(at)) * width < FREQUENCIES[-1]
    at = [q[within][:, None] for q in at]
    near = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]).T
    # the spectrum of the star repeats at the whole frequencies of the input
    alias = [q - np.round(q) - n for q, n in zip(at, near, strict=True)]
    ky, kx = (np.interp(np.abs(q) * width, FREQUENCIES, values) for q in at)
    ty, tx = (width * np.sign(q) * np.interp(np.abs(q) * width, FREQUENCIES, slopes) for q in at)
    sy, sx = (profile(q, fwhm) for q in alias)
    dy, dx = (slope(q, fwhm) for q in alias)
    # an order and its opposite give twice the real part
    flux = 2 * np.abs(ky * kx * sy * sx).sum()
    along_y, along_x = kx * sx * (ty * sy + ky * dy), ky * sy * (tx * sx + kx * dx)
    turned = (cosine * along_y + sine * along_x, cosine * along_x - sine * along_y)
    return float(flux), float(max(np.abs(t).sum() for t in turned) / np.pi / max(1.0, scale))


def measured(kernel: Any, fwhm: float, scale: float, angle: float) -> tuple[Array, Array]:
    """Return errors of flux and place of stars that are alone in their squares, from all light within."""
    rng = np.random.default_rng(5)
    # kernels reach 3 or 4 times the scale, along diagonals of the squares too; light of a neighbour would count
    size, step = (240, 30) if scale <= 1 else (400, 100)
    side, along = int(1.5 * size / scale), np.arange(step, size, float(step))
    places = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    places += rng.uniform(-0.5, 0.5, places.shape)
    source, target = tangent((size, size)), tangent((side, side), scale=1e-4 * scale, angle=angle)
    out = lazyccd.wcs_project(frame(stars((size, size), places, fwhm), source), target, (side, side), order=kernel)
    pixels = np.nan_to_num(out.data.values)
    reach = int(np.ceil(11 if scale <= 1 else 24 / scale))
    found = []
    for x, y in zip(*pixel_to_pixel(source, target, places[:, 1], places[:, 0]), strict=True):
        j, i = round(float(y)), round(float(x))
        cut = pixels[j - reach : j + reach + 1, i - reach : i + reach + 1]
        ys, xs = np.mgrid[j - reach : j + reach + 1, i - reach : i + reach + 1]
        found.append((cut.sum() - 1, (cut * ys).sum() / cut.sum() - y, (cut * xs).sum() / cut.sum() - x))
    errors = np.abs(found)
    return errors[:, 0], errors[:, 1:]


@pytest.mark.parametrize("kernel", ["lanczos3", "lanczos4"])
@pytest.mark.parametrize(
    ("fwhm", "scale", "angle"), [(1.5, 1, 45), (1.5, 1, 40), (1.5, 1, 11), (2, 1, 45), (2, 1, 26.57), (2, 3, 45)]
)
def test_errors_of_stars_are_aliases_of_the_kernel(kernel: str, fwhm: float, scale: float, angle: float) -> None:
    """No star errs more than the kernel's transform says, and the worst of a field comes near to it."""
    flux, place = measured(kernel, fwhm, scale, angle)
    flux_bound, place_bound = bounds(kernel, fwhm, scale, angle)
    # 1e-4: phases are tabulated, and neighbouring lines of a lattice are not quite parallel in the tangent projection
    assert flux.max() < flux_bound + 1.5e-4
    assert place.max() < place_bound + 1e-4
    if place_bound > 1e-3:
        assert place.max() > 0.6 * place_bound


@pytest.mark.parametrize(
    ("kernel", "fwhm", "scale", "flux", "place"),
    [
        ("lanczos3", 2.0, 1.0, 3.2e-4, 0.001),
        ("lanczos3", 1.5, 1.0, 1e-3, 0.003),
        ("lanczos4", 1.5, 1.0, 6e-4, 0.002),
        ("lanczos4", 2.0, 1.0, 3e-4, 0.001),
        ("lanczos3", 2.0, 1.5, 1e-3, 0.0032),
        ("lanczos3", 2.0, 3.0, 1e-3, 0.003),
    ],
)
def test_largest_errors_of_all_angles(kernel: str, fwhm: float, scale: float, flux: float, place: float) -> None:
    """What the documentation of `lazyccd.wcs_project` promises, at every half degree."""
    worst = np.max([bounds(kernel, fwhm, scale, angle) for angle in np.arange(1, 45.5, 0.5)], axis=0)
    assert worst[0] < flux
    assert worst[1] < place

"""sky_cells: each position of the sky belongs to one cell, and lies on its image with all of the margin about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import ArgumentTypeError, ParameterError
from tests.frame.test_sky_footprint import directions, make_wcs

tilings = st.builds(lazyccd.sky_cells, st.floats(1e-3, 0.02), st.floats(0.3, 10.0), overlap=st.integers(0, 50))


def on_image(cell: Any, ra: float, dec: float) -> float:
    """Return by how many pixels a position lies inside of the image of a cell."""
    x, y = cell.wcs.all_world2pix(ra, dec, 0)
    rows, columns = cell.shape
    return float(min(x + 0.5, columns - 0.5 - x, y + 0.5, rows - 0.5 - y))


@given(tilings, directions)
def test_a_position_belongs_to_one_cell(cells: Any, direction: tuple[float, float]) -> None:
    """Limits hold it, those of all other cells of its ring and of other rings do not, and its image does, with the margin."""
    ra, dec = direction[0] % 360, direction[1]
    cell = cells.cell_of(SkyCoord(ra, dec, unit="deg"))
    number = int(cell.name.split("c")[1])
    ring = int(cell.name[1:].split("c")[0])
    assert cell.dec[0] <= dec < cell.dec[1] or dec == cell.dec[1] == 90
    width = 360 / cells.counts[ring]
    assert cell.ra[0] - 1e-9 <= ra <= cell.ra[1] + 1e-9
    assert cell.ra == (number * 360 / cells.counts[ring], (number + 1) * 360 / cells.counts[ring])
    assert on_image(cell, ra, dec) >= cells.overlap - 1e-6
    # no wider than high
    assert width * np.cos(np.deg2rad(min(map(abs, cell.dec)))) <= cells.height * 1.001 or cells.counts[ring] == 1
    again = cells.cell(cell.name)
    assert (again.name, again.ra, again.dec, again.shape) == (cell.name, cell.ra, cell.dec, cell.shape)
    assert again.wcs.wcs.compare(cell.wcs.wcs)


@given(tilings)
def test_cells_leave_no_gap_and_have_no_overlap(cells: Any) -> None:
    """Rings meet, from pole to pole; the cells of a ring go around once; limits belong to the north and to the east."""
    south, north = cells.cell(cells._name(0, 0)), cells.cell(cells._name(cells.rings + 1, 0))
    assert (south.dec[0], north.dec[1]) == (-90, 90)
    firsts = [cells.cell(cells._name(ring, 0)) for ring in range(cells.rings + 2)]
    assert [one.dec[1] for one in firsts[:-1]] == [one.dec[0] for one in firsts[1:]]
    assert len(cells) == cells.counts.sum()
    ring = cells.rings // 2
    cell = cells.cell(cells._name(ring, cells.counts[ring] - 1))
    assert cell.ra[1] == pytest.approx(360)
    assert cells.cell_of(SkyCoord(10.0, cell.dec[1], unit="deg")).dec[0] == cell.dec[1]
    assert cells.cell_of(SkyCoord(0.0, cell.dec[0], unit="deg")).ra[0] == 0
    assert cells.cell_of(SkyCoord(359.999999, cell.dec[0], unit="deg")).name == cell.name


def test_poles_names_and_several_positions() -> None:
    """Poles belong to the round cells, in Galactic coordinates too; what has no cell is refused with a way out."""
    cells = lazyccd.sky_cells(1 * u.arcmin, size=5 * u.deg)
    assert cells.cell_of(SkyCoord(123.0, 90.0, unit="deg")).name == "r36c00"
    assert cells.cell_of(SkyCoord(123.0, -90.0, unit="deg")).name == "r00c00"
    both = SkyCoord([10.0, 200.0], [20.0, -80.0], unit="deg")
    assert [c.name for c in cells.cell_of(both.galactic)] == [c.name for c in cells.cell_of(both)]
    assert cells.cell("r18c00").dec == (-2.5, 2.5)
    for name in ("r99c00", "r18c72", "M 31", "r18c00 "):
        with pytest.raises(ParameterError, match="begin with 'r00c00' and end with 'r36c00'"):
            cells.cell(name)
    with pytest.raises(ArgumentTypeError, match="SkyCoord"):
        cells.cell_of((10.0, 20.0))
    with pytest.raises(ParameterError, match="NaN"):
        cells.cell_of(SkyCoord(np.nan, 20.0, unit="deg"))
    for arguments, message in (
        ((0.0,), "pixel_scale"),
        ((0.1, 20.0), "size 20.0"),
        ((0.1, 1.0, -1), "overlap"),
        ((0.1, 1.0, 1.5), "overlap"),
        ((1e-7, 5.0), "pixels"),
    ):
        with pytest.raises(ParameterError, match=message):
            lazyccd.sky_cells(*arguments[:2], **({"overlap": arguments[2]} if len(arguments) == 3 else {}))  # type: ignore[arg-type]


def frame(center: tuple[float, float], side: int = 60, scale: float = 0.01) -> Any:
    """Return a frame about a place."""
    wcs = make_wcs("TAN", center, (side, side), scale, angle=20)
    return lazyccd.from_ccddata(CCDData(np.ones((side, side), "f4"), unit="adu", wcs=wcs))


@pytest.mark.parametrize("center", [(0.0, 0.0), (10.0, 89.9), (200.0, -90.0), (359.9, 41.0)])
def test_cells_that_frames_touch(center: tuple[float, float]) -> None:
    """All cells that own a pixel of the frame are among them, and none that is far from it; each can be filled."""
    cells = lazyccd.sky_cells(0.01, size=0.43, overlap=5)
    ds = frame(center)
    touched = {cell.name: cell for cell in cells.cells_touching([ds, ds])}
    y, x = (v.ravel() for v in np.mgrid[0:60:3, 0:60:3])
    owners = {cell.name for cell in cells.cell_of(ds.ccd.wcs.pixel_to_world(x, y))}
    assert owners <= set(touched)
    assert len(touched) <= len(owners) + 12
    assert list(touched) == sorted(touched)
    total = 0
    for cell in touched.values():
        image = lazyccd.wcs_project(ds, cell.wcs, cell.shape, order="nearest").data.values
        rows, columns = np.nonzero(np.isfinite(image))
        if rows.size:
            owned = cells.cell_of(cell.wcs.pixel_to_world(columns, rows))
            total += sum(one.name == cell.name for one in owned)
    # every position is in one cell, so that pixels that are owned have the area of the frame
    assert abs(total - 3600) < 100


def test_a_frame_between_cells_is_in_both() -> None:
    """Margins overlap."""
    cells = lazyccd.sky_cells(0.01, size=1.0, overlap=20)
    edge = cells.cell_of(SkyCoord(40.0, 30.0, unit="deg")).ra[1]
    names = {cell.name for cell in cells.cells_touching(frame((edge - 0.1, 30.2), side=10))}
    assert len(names) == 2

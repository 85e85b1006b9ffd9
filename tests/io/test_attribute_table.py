"""Attributes that are tables, as HDUs of FITS files."""

from __future__ import annotations

import time
from pathlib import Path

from astropy.io import fits

from lazyccd.frame.core import CORRECTIONS
from lazyccd.io.fits.attribute_table import table_attribute, table_hdu
from lazyccd.io.fits.scan import scan_fits


def test_what_is_not_there_is_none_again(tmp_path: Path) -> None:
    """Also among texts, where NaN would become the word 'nan'; a column of nothing has numbers."""
    columns = {"frame": ["a.fits", None, "c.fits"], "scale": [1.0, None, 2.5], "nothing": [None, None, None]}
    kept = table_hdu(columns).kept
    assert kept is not None
    path = tmp_path / "a.fits"
    fits.PrimaryHDU().writeto(path)
    with path.open("ab") as file:
        file.write(kept.content)
    assert table_attribute(scan_fits(str(path))) == {CORRECTIONS: columns}
    with fits.open(path) as hdus:
        assert list(hdus[1].data["frame"]) == ["a.fits", "", "c.fits"]


def test_bytes_do_not_depend_on_the_clock(tmp_path: Path) -> None:
    """An interrupted write goes on only if what it copies has the same bytes; the checksums are right nevertheless."""
    columns = {"frame": ["a.fits", "b.fits"], "scale": [1.0, 2.5]}
    kept = table_hdu(columns).kept
    time.sleep(1.1)  # astropy's comments of checksums have the time in seconds
    again = table_hdu(columns).kept
    assert kept is not None
    assert again is not None
    assert kept.content == again.content
    path = tmp_path / "a.fits"
    fits.PrimaryHDU().writeto(path)
    with path.open("ab") as file:
        file.write(kept.content)
    with fits.open(path) as hdus:
        assert hdus[1].verify_checksum() == hdus[1].verify_datasum() == 1

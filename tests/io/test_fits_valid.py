"""Files that are written have no defect of ours: fitsverify finds nothing in them that it does not find in their source."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections import Counter
from pathlib import Path

import pytest
import xarray as xr
from astropy.io import fits

import lazyccd
from lazyccd.errors import FormatError
from lazyccd.io.fits.scan import scan_fits

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SUFFIXES = {".fits", ".fit", ".fz", ".gz", ".bz2", ".xz"}
FILES = [path for path in sorted(DATA.rglob("*")) if path.suffix in SUFFIXES]

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="the real frames of ../shared/data are not here"),
    pytest.mark.skipif(not shutil.which("fitsverify"), reason="the Debian package fitsverify is not installed"),
]

OWN = {
    r"EPOCH is deprecated": "may be the time of the observation and not the equinox",
    r"is duplicated": "which of the cards holds is not ours to say; distortion tables repeat keywords on purpose",
    r"has a null value|closing \"'\" is missing": "cards that say nothing, or cannot be parsed, keep their text",
    r"keywords appear to be missing": "a WCS that is not complete in the source",
    r"is not in range": "a WCS of more axes than the source's image has",
    r"mutually exclusive": "a WCS with two matrices in the source",
    r"is not a floating point number": "a text where a number is expected, such as EQUINOX = 'J2000'",
    r"date string has illegal format": "dates without a century",
    r"SIMPLE != T|WCSAXES|GCOUNT = |OGIP long string": "HDUs that are no images are copied byte for byte",
    r"Column|column|TFORM|Bin/ASCII|checksum|CHECKSUM": "tables are copied byte for byte",
    r"move past end of file|last byte of the file": "a table whose heap is not where its header says",
}
"""What fitsverify may say of a product if it says it of the source too: cards and bytes that are kept, and why."""

SHORT = (
    "efosc2_ntt/EFOSC.2022-01-26T19:02:38.210.fits",
    "tres1_oscaar/tres1-001d.fit",
    "lco_sinistro_mef/mef_raw_test_frame.fits",
    "lco_sinistro_mef/cpt1m012-fl10-20151216-0073-e00.fits.fz",
    "decam_cp_tpv_dq/ksb_160203_115029_ood_r_v1-ccd2.fits",
    "fits_astropy_tests/io_fits__ascii.fits",
    "fits_astropy_tests/wcs__dist_lookup.fits.gz",
    "fits_astropy_tests/wcs__j94f05bgq_flt.fits",
    "fits_astropy_tests/wcs__ie6d07ujq_wcs.fits",
    "m17_2mass/aK_asky_990502s1420186.fits.gz",
)
"""Files of each kind of defect, and what products once added to it."""


def findings(path: Path) -> Counter[str]:
    """Return what fitsverify says of a file, without the numbers of cards and HDUs."""
    done = subprocess.run(
        ["fitsverify", str(path)], capture_output=True, text=True, errors="replace", check=False, timeout=100
    )
    text = re.sub(r"\s+ffgcnn could not find.*", "", done.stdout + done.stderr)  # what the library asked itself before
    said = re.findall(r"\*\*\* (?:Warning|Error):.*(?:\n {13}.*)*", text)
    return Counter(re.sub(r"(card )?\(?#\d+\)?,?|HDU \d+ and \d+|\s+", " ", line) for line in said)


def check(source: Counter[str], product: Counter[str]) -> None:
    """Assert that a product has findings of its source only, and only such as are explained."""
    assert not product - source
    for line in product:
        assert any(re.search(pattern, line) for pattern in OWN), line


def round_trips(path: Path, folder: Path, *, compress: bool) -> None:
    """Write all that a file holds, and each of its images alone, and compare what fitsverify says."""
    try:
        file = scan_fits(path)
    except FormatError:
        pytest.skip("is refused, which is tested elsewhere")
    source = findings(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about the sources is not the subject
        tree = lazyccd.open_mef(path)
        check(source, findings(write(tree, folder / "tree.fits")))
        for hdu in file.hdus if compress else ():
            if hdu.is_plane:
                frame = lazyccd.open_fits(path, hdu.index)
                # cards of the primary header are in each of them
                check(Counter(dict.fromkeys(source, 99)), findings(write(frame, folder / "frame.fits")))
        if compress:
            check(source, findings(write(tree, folder / "tree.fits.fz", "RICE_1")))


def write(ccd: xr.Dataset | xr.DataTree, path: Path, compress: str | None = None) -> Path:
    """Write a file anew."""
    return Path(str(lazyccd.to_fits(ccd, path, overwrite=True, compress=compress)))


@pytest.mark.parametrize("name", SHORT)
def test_real_files(tmp_path: Path, name: str) -> None:
    """Trees, their images alone, and trees compressed, of files of each kind."""
    round_trips(DATA / name, tmp_path, compress=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_readable_file(tmp_path: Path, path: Path) -> None:
    """All of the corpus; every third file compressed, and image by image, too."""
    round_trips(path, tmp_path, compress=FILES.index(path) % 3 == 0)


def test_a_header_without_pixels_keeps_its_axes(tmp_path: Path) -> None:
    """So its WCS is valid: lengths 0 stay, and the header of an image that is gone has axes of length 0."""
    raw = DATA / "lco_sinistro_mef" / "mef_raw_test_frame.fits"
    path = write(lazyccd.open_mef(raw), tmp_path / "a.fits")
    for key in ("BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "CRPIX1", "CD1_1"):
        assert fits.getval(path, key) == fits.getval(raw, key)
    tree = lazyccd.open_mef(DATA / "efosc2_ntt" / "EFOSC.2022-01-26T19:02:38.210.fits")
    header = tree.attrs["header"]
    with fits.open(write(xr.DataTree(children={"A": tree[next(iter(tree.children))]}), tmp_path / "b.fits")) as file:
        assert (file[0].header["NAXIS"], len(file)) == (0, 2)
    moved = xr.DataTree(xr.Dataset(attrs={"header": header}), {"A": tree[next(iter(tree.children))]})
    with fits.open(write(moved, tmp_path / "c.fits")) as file:
        assert [file[0].header[key] for key in ("NAXIS", "NAXIS1", "NAXIS2")] == [2, 0, 0]
    assert not findings(tmp_path / "c.fits")

"""Real and odd files: each is read as astropy reads it, or refused with a clear error; ``pytest -s`` prints the table of both."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lazyccd.errors import FormatError
from lazyccd.io.fits.scan import HduInfo, scan_fits
from lazyccd.io.fits.storage import FitsStorage
from lazyccd.sections import Region

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FOLDERS = ("fits_types_ds9", "fits_astropy_tests", "fits_nomtam", "panoptes", "malformed")
FILES = [path for folder in FOLDERS for path in sorted((DATA / folder).glob("*")) if path.suffix != ".hdr"]

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real frames of ../shared/data are not here")

REFUSED = {
    "git_lfs_pointer.fits": "Git LFS",
    "ldac_test_catalog_corrupt.fits": "2880 bytes behind HDU 2 are no extension",
    "v1.SPITZER_I1_70576896_0000_0000_1_bcd.fits": "ends at byte 296640 and the file has 296635",
    "v1.WFPC2u5780205r_c0fx.fits": "bytes behind HDU 0 are no extension",
    "modeling__idcompspec.fits": "a FITS file begins with 'SIMPLE  ='",
    "io_fits__lzw.fits.Z": "Unix compress",
    "rp600245n00_im1.fits.Z": "Unix compress",
    "test.fits.Z": "Unix compress",
}

REFUSED_HDUS = {
    "io_fits__arange.fits[0]": "NAXIS = 3, shape (7, 10, 11), and must have two axes; write its planes as images",
    "io_fits__compressed_float_bzero.fits[COMPRESSED_IMAGE,1]": "NAXIS = 1, shape (3,), and must have two axes",
    "wcs__dist.fits[D2IMARR,1]": "NAXIS = 1, shape (4096,), and must have two axes; rows of pixels such as spectra",
}


def check_image(storage: FitsStorage, hdu: HduInfo, expected: np.ndarray) -> None:
    """Compare pixels, all and a window, with what astropy read."""
    expected = expected.reshape(storage.shape)
    with storage.open() as reader:
        got = reader.read(Region.full(storage.shape))
        window = Region(1, storage.shape[0], storage.shape[1] // 2, storage.shape[1])
        np.testing.assert_array_equal(reader.read(window), got[window.slices])
    if hdu.bitpix > 0 and hdu.bscale != 1:
        # astropy scales in float32, which rounds twice.
        np.testing.assert_allclose(got, expected, rtol=2e-7)
    else:
        np.testing.assert_array_equal(got, expected.astype(got.dtype))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_as_astropy_reads_it(path: Path) -> None:
    """Pixels, names and shapes of every HDU are those of astropy; what is refused is refused for its own reason."""
    if path.name in REFUSED:
        with pytest.raises(FormatError, match=REFUSED[path.name]):
            scan_fits(path)
        return
    file = scan_fits(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False) as hdus:
            assert len(hdus) == len(file.hdus)
            for hdu, theirs in zip(file.hdus, hdus, strict=True):
                if hdu.name:
                    assert (hdu.name.upper(), hdu.ver) == ((theirs.name or "PRIMARY").upper(), theirs.ver)
                if hdu.kind != "image":
                    assert not theirs.is_image or theirs.data is None or theirs.data.size == 0
                    continue
                assert hdu.shape == theirs.shape
                if f"{path.name}{hdu.label}" in REFUSED_HDUS:
                    with pytest.raises(FormatError, match="must have two axes"):
                        FitsStorage.of(file, hdu)
                else:
                    check_image(FitsStorage.of(file, hdu), hdu, theirs.data)


def test_table_of_what_is_read_and_what_is_refused() -> None:
    """Every file and every image in it is in one of the two lists; messages name what they speak of and say what to do."""
    read, refused = [], {}
    for path in FILES:
        try:
            file = scan_fits(path)
        except FormatError as error:
            refused[path.name] = str(error)
            continue
        for hdu in file.hdus:
            name = f"{path.name}{hdu.label}"
            if hdu.kind != "image":
                read.append((name, hdu.kind))
                continue
            try:
                storage = FitsStorage.of(file, hdu)
                packed = f" {storage.tiles.algorithm}" if storage.tiles else ""
                read.append((name, f"image {hdu.shape} BITPIX {hdu.bitpix}{packed}"))
            except FormatError as error:
                refused[name] = str(error)
    expected = REFUSED | REFUSED_HDUS
    assert set(refused) == set(expected)
    for name, message in refused.items():
        assert expected[name] in message
        assert name.split("[")[0] in message
        assert re.search(r"fetch|write|run|decompress|another format|not read here", message)
    assert sum(what.startswith("image") for _, what in read) > 80
    print("\nread as astropy reads it:", *(f"  {name:55} {what}" for name, what in read), sep="\n")
    print("\nrefused:", *(f"  {name:55} {message}" for name, message in refused.items()), sep="\n")


def test_the_corpus_is_complete() -> None:
    """Most files were not refused."""
    assert len(FILES) > 100

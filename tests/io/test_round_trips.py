"""FITS to Zarr and back loses no card, table, plane, unit or bit of any real file that can be read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import lazyccd
from lazyccd.errors import FormatError
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.resumable.write import frames_to_write
from tests.io.lossless import assert_nothing_lost

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FILES = sorted(DATA.rglob("*.fit*"))

REAL = [
    "lco_sinistro_mef/mef_raw_test_frame.fits",
    "lco_sinistro_mef/banzai_test_frame.fits.fz",
    "lco_sinistro_mef/coj1m011-fl08-20151216-0049-b00.fits.fz",
    "lsst_16amp/30211212000310-R22-S22-det098.fits",
    "decam_cp_tpv_dq/c4d_130105_065255_ooi_r_a1-N15.fits.fz",
    "dq_bitmask/HST_NICMOS.fits",
    "dq_bitmask/3c120_stis_orig.fits.gz",
    "dq_bitmask/frame-r-001000-1-0100.fits.bz2",
    "dq_bitmask/fpM-001000-r1-0100.fit",
    "dq_bitmask/HST_WFPC_II.fits",
    "cosmic_rays/gmos.fits",
    "ccdproc/science-mef.fits",
]

UNIX_COMPRESS = "Unix compress"
CUBE, ROW = "NAXIS = 3, .* must have two axes", "NAXIS = 1, .* must have two axes"
REFUSED = {
    # no whole FITS files, or of a compression that is not read
    "git_lfs_pointer.fits": "Git LFS",
    "ldac_test_catalog_corrupt.fits": "2880 bytes behind HDU 2 are no extension",
    "v1.SPITZER_I1_70576896_0000_0000_1_bcd.fits": "ends at byte 296640 and the file has 296635",
    "v1.WFPC2u5780205r_c0fx.fits": "bytes behind HDU 0 are no extension",
    "modeling__idcompspec.fits": "a FITS file begins with 'SIMPLE  ='",
    "io_fits__lzw.fits.Z": UNIX_COMPRESS,
    "rp600245n00_im1.fits.Z": UNIX_COMPRESS,
    "test.fits.Z": UNIX_COMPRESS,
    # images of one or three axes are no frames; a tree keeps them byte for byte
    "HST_WFPC_II.fits[0]": CUBE,
    "WFPC2u5780205r_c0fx.fits[0]": CUBE,
    "io_fits__arange.fits[0]": CUBE,
    "frame-r-001000-1-0100.fits.bz2[1]": ROW,
    "io_fits__compressed_float_bzero.fits[COMPRESSED_IMAGE,1]": ROW,
    "wcs__dist.fits[D2IMARR,1]": ROW,
}
"""All files, and images of files that are read, that are not; each with the reason that the error gives."""


@pytest.mark.filterwarnings("ignore:Invalid keyword for column:astropy.io.fits.verify.VerifyWarning")
@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data: Path, tmp_path: Path, name: str) -> None:
    """FITS to FITS, and FITS to Zarr to FITS: the same bytes, and no card, table or plane lost."""
    tree = lazyccd.open_mef(shared_data / name)
    direct = Path(str(lazyccd.to_fits(tree, tmp_path / "a.fits")))
    assert_nothing_lost(shared_data / name, direct, masks=False)
    store = lazyccd.open_zarr(str(lazyccd.to_zarr(tree, tmp_path / "a.zarr")))
    assert isinstance(store, xr.DataTree)
    assert direct.read_bytes() == Path(str(lazyccd.to_fits(store, tmp_path / "b.fits"))).read_bytes()
    again = lazyccd.open_mef(direct)
    assert list(again.children) == list(tree.children)
    for child in list(tree.children)[:3]:
        for variable in tree[child].data_vars:
            # the variance comes from what a file has of it
            rtol = 1e-6 if variable == "uncertainty" else 0
            np.testing.assert_allclose(again[child][variable].values, tree[child][variable].values, rtol=rtol)
            assert again[child][variable].attrs == tree[child][variable].attrs


def assert_same_bits(found: xr.Dataset, given: xr.Dataset) -> None:
    """Assert that two frames have the same variables, bit by bit, attributes and coordinates."""
    assert list(found) == list(given)
    assert found.attrs == given.attrs
    for name in (*given.data_vars, *given.coords):
        assert found[name].attrs == given[name].attrs
        assert found[name].dtype == given[name].dtype
        np.testing.assert_array_equal(found[name].values.view(np.uint8), given[name].values.view(np.uint8))


def go_round(opened: xr.Dataset | xr.DataTree, folder: Path) -> Path:
    """Assert that an archive gives back what was put in: by variable, and the FITS file to the byte; return that file."""
    direct = Path(str(lazyccd.to_fits(opened, folder / "direct.fits", overwrite=True)))
    archived = lazyccd.open_zarr(lazyccd.to_zarr(opened, folder / "a.zarr", overwrite=True))
    if isinstance(opened, xr.Dataset):
        assert_same_bits(archived, opened)
    else:
        given, found = frames_to_write(opened), frames_to_write(archived)  # none of a file of tables
        assert list(given) == list(found)
        for name, ds in given.items():
            assert_same_bits(found[name], ds)
    through = Path(str(lazyccd.to_fits(archived, folder / "through.fits", overwrite=True)))
    assert through.read_bytes() == direct.read_bytes()
    return direct


def all_images(path: Path, folder: Path, counts: Counter[str]) -> None:
    """Send every image of a file round by itself, and all of them as a tree, with what else the file has."""
    if path.name in REFUSED:
        with pytest.raises(FormatError, match=REFUSED[path.name]):
            scan_fits(path)
        counts["files refused"] += 1
        return
    for hdu in scan_fits(path).hdus:
        name = f"{path.name}{hdu.label}"
        if name in REFUSED:
            with pytest.raises(FormatError, match=REFUSED[name]):
                lazyccd.open_fits(path, hdu=hdu.index)
            counts["images refused"] += 1
        elif hdu.kind == "image":
            go_round(lazyccd.open_fits(path, hdu=hdu.index), folder)
            counts["images"] += 1
    assert_nothing_lost(path, go_round(lazyccd.open_mef(path), folder), masks=False)
    counts["files"] += 1


@pytest.mark.filterwarnings("ignore")  # odd cards are warned about, and are not what this is about
def test_a_file_of_each_camera(shared_data: Path, tmp_path: Path) -> None:
    """The smallest file of each folder."""
    counts: Counter[str] = Counter()
    for folder in sorted(path for path in shared_data.iterdir() if path.is_dir()):
        files = sorted(folder.rglob("*.fit*"), key=lambda path: path.stat().st_size)
        for path in files[:1]:
            all_images(path, tmp_path, counts)
    assert counts["files"] >= 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_file(tmp_path: Path, path: Path) -> None:
    """All of them, and all of their images."""
    all_images(path, tmp_path, Counter())


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_left_out(shared_data: Path) -> None:
    """So many files and images are what `test_every_file` sends round."""
    files = sorted(shared_data.rglob("*.fit*"))
    readable = [path for path in files if path.name not in REFUSED]
    images = [f"{path.name}{hdu.label}" for path in readable for hdu in scan_fits(path).hdus if hdu.kind == "image"]
    refused = [name for name in images if name in REFUSED]
    assert (len(readable), len(files) - len(readable)) == (250, 8)
    assert (len(images) - len(refused), len(refused)) == (430, 6)

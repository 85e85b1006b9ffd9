"""The code of ccdproc's page "Reduction toolbox" runs with ``import lazyccd as ccdproc`` and gives ccdproc's numbers."""

from __future__ import annotations

import ast
import contextlib
import re
from pathlib import Path
from typing import Any

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.modeling import models
from astropy.nddata import CCDData
from astropy.utils.misc import NumpyRNGContext

import lazyccd
from lazyccd.testing.parity import assert_same

BLOCKS = {
    "create_deviation": """
from astropy import units as u
import numpy as np
from astropy.nddata import CCDData
import ccdproc
img = np.random.normal(loc=10, scale=0.5, size=(100, 232))
data = CCDData(img, unit=u.adu)
data_with_deviation = ccdproc.create_deviation(data, gain=1.5 * u.electron/u.adu, readnoise=5 * u.electron)
data_with_deviation.header['exposure'] = 30.0
""",
    "gain_correct": "gain_corrected = ccdproc.gain_correct(data_with_deviation, 1.5*u.electron/u.adu)",
    "cosmicray_lacosmic": "cr_cleaned = ccdproc.cosmicray_lacosmic(gain_corrected, sigclip=5)",
    "cosmicray_median": "cr_cleaned = ccdproc.cosmicray_median(gain_corrected, mbox=11, rbox=11, gbox=5)",
    "subtract_overscan": """
oscan_subtracted = ccdproc.subtract_overscan(cr_cleaned, overscan=cr_cleaned[:, 200:], overscan_axis=1)
oscan_subtracted = ccdproc.subtract_overscan(cr_cleaned, fits_section='[201:232,1:100]', overscan_axis=1)
""",
    "subtract_overscan with a model": """
from astropy.modeling import models
poly_model = models.Polynomial1D(1)
oscan_subtracted = ccdproc.subtract_overscan(cr_cleaned, overscan=cr_cleaned[:, 200:], overscan_axis=1, model=poly_model)
""",
    "trim_image": """
trimmed = ccdproc.trim_image(oscan_subtracted, fits_section='[1:200, 1:100]')
trimmed = ccdproc.trim_image(oscan_subtracted[:, :200])
""",
    "subtract_bias": """
fake_bias_data = np.random.normal(size=trimmed.shape)
master_bias = CCDData(fake_bias_data, unit=u.electron, mask=np.zeros(trimmed.shape))
bias_subtracted = ccdproc.subtract_bias(trimmed, master_bias)
""",
    "subtract_dark": """
master_dark = master_bias.multiply(0.1)
master_dark.header['exposure'] = 15.0
dark_subtracted = ccdproc.subtract_dark(bias_subtracted, master_dark, exposure_time='exposure',
                                        exposure_unit=u.second, scale=True)
""",
    "flat_correct": """
fake_flat_data = np.random.normal(loc=1.0, scale=0.05, size=trimmed.shape)
master_flat = CCDData(fake_flat_data, unit=u.electron)
reduced_image = ccdproc.flat_correct(dark_subtracted, master_flat)
""",
    "flat_correct with min_value": """
reduced_image = ccdproc.flat_correct(dark_subtracted, master_flat, min_value=0.9)
""",
    "ccd_process": """
ccd = CCDData(img, unit=u.adu)
ccd.header['exposure'] = 30.0
nccd = ccdproc.ccd_process(ccd, oscan='[201:232,1:100]', trim='[1:200, 1:100]', error=True,
                           gain=2.0*u.electron/u.adu, readnoise=5*u.electron, dark_frame=master_dark,
                           exposure_key='exposure', exposure_unit=u.second, dark_scale=True,
                           master_flat=master_flat)
""",
    "bitfield_to_boolean_mask": """
import numpy as np
from astropy.io import fits
from ccdproc import bitfield_to_boolean_mask, CCDData
fitsfilename = 'some_fits_file.fits'
bitfieldextension = extensionname_or_extensionnumber
ccd = CCDData.read(fitsfilename)
mask = bitfield_to_boolean_mask(fits.getdata(fitsfilename, bitfieldextension))
ccd.mask = mask
""",
    "ccdmask": """
ccd.mask = ccdproc.ccdmask(ccd, ncmed=7, nlmed=7, ncsig=15, nlsig=15, lsigma=9, hsigma=9, ngood=5)
""",
    "median_filter": """
import ccdproc
from astropy.nddata import CCDData
import numpy as np
import matplotlib.pyplot as plt
from astropy.modeling.functional_models import Gaussian2D
from astropy.utils.misc import NumpyRNGContext
from scipy.ndimage import uniform_filter
source = Gaussian2D(60, 70, 70, 20, 25)
data = source(*np.mgrid[0:250, 0:250])
source = Gaussian2D(70, 150, 180, 15, 15)
data += source(*np.mgrid[0:250, 0:250])
with NumpyRNGContext(1234):
    noise = np.random.exponential(40, (250, 250))
    noise[noise < 100] = 0
    data += noise
ccd = CCDData(data, unit='adu')
fig, (ax1, ax2, ax3) = plt.subplots(1, 3)
ax1.set_title('Unprocessed')
ax1.imshow(ccd, origin='lower', interpolation='none', cmap=plt.cm.gray)
ax2.set_title('Mean filtered')
ax2.imshow(uniform_filter(ccd.data, 5), origin='lower', interpolation='none', cmap=plt.cm.gray)
ax3.set_title('Median filtered')
ax3.imshow(ccdproc.median_filter(ccd, 5), origin='lower', interpolation='none', cmap=plt.cm.gray)
plt.tight_layout()
plt.show()
""",
    "flat_correct of a multi-extension file": """
from astropy.utils.data import get_pkg_data_filename
from astropy.io import fits
from astropy.nddata import CCDData
from ccdproc import flat_correct
science_name = get_pkg_data_filename('data/science-mef.fits', package='ccdproc.tests')
flat_name = get_pkg_data_filename('data/flat-mef.fits', package='ccdproc.tests')
science_mef = fits.open(science_name)
flat_mef = fits.open(flat_name)
new = []
new.append(science_mef[0])
for science_hdu, flat_hdu in zip(science_mef[1:], flat_mef[1:]):
    science = CCDData(data=science_hdu.data, header=science_hdu.header, unit=science_hdu.header['unit'])
    flat = CCDData(data=flat_hdu.data, header=flat_hdu.header, unit=science_hdu.header['unit'])
    science_cal = flat_correct(science, flat)
    as_hdu = fits.ImageHDU(data=science_cal.data, header=science_cal.header)
    new.append(as_hdu)
as_hdulist = fits.HDUList(new)
as_hdulist.writeto('science_cal.fits')
science_mef.close()
flat_mef.close()
""",
}
"""The code of the page, block by block, in its order."""

NOT_LOGGED = ("cosmicray_lacosmic", "crlacos", "cosmicray_median", "crmedian")
"""What lazyccd logs and ccdproc does not; see docs/deviations.md."""

Names = dict[str, Any]
Pairs = dict[str, tuple[CCDData, CCDData]]


def run(block: str, library: str, names: Names, folder: Path) -> list[str]:
    """Run a block with its library imported as ccdproc, in a folder of its own; return the names of images it made."""
    code = BLOCKS[block].replace("import ccdproc", f"import {library} as ccdproc")
    code = code.replace("from ccdproc import", f"from {library} import")
    before = dict(names)
    with contextlib.chdir(folder), NumpyRNGContext(len(before)):
        exec(compile(code, block, "exec"), names)
    images = [name for name, value in names.items() if isinstance(value, CCDData)]
    return sorted(name for name in images if names[name] is not before.get(name) or f"{name}.mask =" in code)


def write_bit_field(folder: Path) -> None:
    """Write the file that the page reads: an image, and a bit field as an extension."""
    pixels, quality = np.arange(12.0).reshape(3, 4), np.arange(12, dtype=np.int16).reshape(3, 4)
    primary = fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu"}))
    fits.HDUList([primary, fits.ImageHDU(quality, name="BITFIELD")]).writeto(folder / "some_fits_file.fits")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Pairs], Names, dict[str, Path]]:
    """Run the page with both libraries; give the images that each block made, our names, and where files were written."""
    folders = {library: tmp_path_factory.mktemp(library) for library in ("lazyccd", "ccdproc")}
    names: dict[str, Names] = {library: {"extensionname_or_extensionnumber": "BITFIELD"} for library in folders}
    pairs: dict[str, Pairs] = {}
    for folder in folders.values():
        write_bit_field(folder)
    for block in BLOCKS:
        made = {library: run(block, library, names[library], folder) for library, folder in folders.items()}
        assert made["lazyccd"] == made["ccdproc"]
        pairs[block] = {name: (names["lazyccd"][name], names["ccdproc"][name]) for name in made["lazyccd"]}
    return pairs, names["lazyccd"], folders


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_gives_the_same_numbers(block: str, results: Any) -> None:
    """Every image that a block of the page makes is ccdproc's: pixels, bad ones, uncertainty, unit, header."""
    pairs = results[0][block]
    assert pairs
    for name, (ours, theirs) in pairs.items():
        mine = ours.copy()
        if block == "flat_correct with min_value":  # docs/deviations.md: pixels below it are LOW_FLAT
            assert np.array_equal(mine.mask, results[1]["master_flat"].data < 0.9)
            mine.mask = theirs.mask
        for key in NOT_LOGGED:
            mine.meta.pop(key, None)
        # docs/deviations.md: ccdproc logs its array package too, and its LA Cosmic rounds all pixels to float32
        rtol = 1e-6 if block == "cosmicray_lacosmic" else 1e-12
        assert_same(mine, theirs, rtol, meta=name != "nccd")


def test_the_filtered_image_that_the_page_draws(results: Any) -> None:
    """The picture has ccdproc's median."""
    ccd = results[1]["ccd"]
    np.testing.assert_array_equal(lazyccd.median_filter(ccd, 5).data, ccdproc.median_filter(ccd, 5).data)
    np.testing.assert_array_equal(results[1]["ax3"].images[0].get_array(), ccdproc.median_filter(ccd, 5).data)


def test_the_keywords_of_ccd_process(results: Any) -> None:
    """The header of the single command says what ccdproc's says, except for an array package that it may log."""
    ours, theirs = results[0]["ccd_process"]["nccd"]
    assert list(ours.header) == list(theirs.header)
    differ = {key for key in theirs.header if ours.header[key] != theirs.header[key]}
    assert all("xp=" in str(theirs.header[key]) for key in differ)


def test_the_multi_extension_file(results: Any) -> None:
    """The file that the page writes has the same extensions, pixels and cards."""
    paths = [folder / "science_cal.fits" for folder in results[2].values()]
    with fits.open(paths[0]) as ours, fits.open(paths[1]) as theirs:
        assert len(ours) == len(theirs) > 2
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(mine.data, other.data, rtol=1e-12)
            assert [card.image for card in mine.header.cards] == [card.image for card in other.header.cards]


def test_the_page_lazily(results: Any) -> None:
    """The same calls on frames give lazy frames with these numbers."""
    expected = results[1]
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(expected["img"], unit="adu", meta={"exposure": 30.0})), (30, 77))
    ds = lazyccd.create_deviation(ds, gain=1.5 * u.electron / u.adu, readnoise=5 * u.electron)
    ds = lazyccd.gain_correct(ds, 1.5 * u.electron / u.adu)
    ds = lazyccd.subtract_overscan(ds, overscan=ds.isel(x=slice(200, None)), model=models.Polynomial1D(1))
    ds = lazyccd.trim_image(ds.isel(x=slice(200)))
    ds = lazyccd.subtract_bias(ds, expected["master_bias"])
    master = lazyccd.from_ccddata(expected["master_dark"])
    ds = lazyccd.subtract_dark(ds, master, exposure_time="exposure", exposure_unit=u.second, scale=True)
    ds = lazyccd.flat_correct(ds, expected["master_flat"], min_value=0.9)
    assert ds["data"].data.npartitions == 12
    assert_same(lazyccd.to_ccddata(ds), expected["reduced_image"], meta=False)


def test_slices_beyond_the_image(results: Any) -> None:
    """The page's ``oscan_subtracted[:, :200000000]`` is as good as ``[:, :200]``; a section beyond it is an error."""
    image = results[1]["oscan_subtracted"]
    assert_same(lazyccd.trim_image(image[:, :200000000]), lazyccd.trim_image(image), meta=False)
    with pytest.raises(lazyccd.errors.SectionError, match=r"\[1:200000000, 1:100\].*232"):
        lazyccd.trim_image(image, fits_section="[1:200000000, 1:100]")


@pytest.fixture
def page(shared_data: Path) -> list[str]:
    """Return the code blocks of the page itself."""
    path = shared_data.parent / "docs" / "TOOLBOX.txt"
    if not path.exists():
        pytest.skip(f"the page is not there: no file {path}")
    blocks = []
    in_script = False
    for paragraph in re.split(r"\n\s*\n", path.read_text()):
        code, plain = "\n".join(re.findall(r"^(?:>>>|\.\.\.) ?(.*)", paragraph, re.M)), is_code(paragraph)
        if code:
            blocks.append(code)
        elif plain and in_script:
            blocks[-1] += "\n" + paragraph
        elif plain:
            blocks.append(paragraph)
        in_script = plain and not code
    return blocks


def is_code(paragraph: str) -> bool:
    """Return whether a paragraph is Python that does something: a heading may parse too ("Indexing: python and FITS")."""
    try:
        nodes = ast.parse(paragraph).body
    except SyntaxError:
        return False
    idle = [isinstance(node, ast.Expr) or (isinstance(node, ast.AnnAssign) and node.value is None) for node in nodes]
    return not all(idle) or paragraph.startswith("plt.")


def test_no_block_of_the_page_is_forgotten(page: list[str]) -> None:
    """The blocks above are the page's, statement by statement."""
    assert len(page) == len(BLOCKS) == 16
    for name, original in zip(BLOCKS, page, strict=True):
        mine = [ast.unparse(node) for node in ast.parse(BLOCKS[name]).body]
        assert mine == [ast.unparse(node) for node in ast.parse(original).body], name

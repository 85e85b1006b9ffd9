# Chip by chip through files with several extensions.
import glob
import sys

import ccdproc
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from ccdproc import combine, gain_correct

files = sorted(glob.glob("./mosaic_*.fits"))
nccd = len(fits.open(files[0])) - 1
print("chips:", nccd, file=sys.stdout)
master = [
    combine(
        files,
        hdu=x + 1,
        unit=u.adu,
        method="median",
        sigma_clip=True,
        sigma_clip_low_thresh=5,
        sigma_clip_high_thresh=5,
        sigma_clip_func=np.ma.median,
    )
    for x in range(nccd)
]
hdul = fits.HDUList([fits.open(files[0])[0]])
for i, ccd in enumerate(master):
    ccd = gain_correct(ccd, ccd.header["GAIN"], gain_unit=u.electron / u.adu)
    ccd.data = ccd.data.astype(np.float32)
    print(ccd.header["EXTNAME"], ccd.unit, ccd.header["OBJECT"], np.median(ccd.data))
    ext = ccd.to_hdu(hdu_mask=None, hdu_uncertainty=None)[0]
    hdul.append(fits.ImageHDU(ext.data, ext.header))
hdul.writeto("master.fits", overwrite=True)
for chip in range(1, nccd + 1):
    ic = ccdproc.ImageFileCollection(".", glob_include="mosaic_*.fits", ext=chip)
    print(ic.summary["file", "extname", "gain"])
    for ccd, name in ic.ccds(return_fname=True, ccd_kwargs={"unit": "adu"}):
        ccd = ccdproc.subtract_overscan(ccd, overscan=ccd[:, -16:], overscan_axis=None, median=True)
        ccd = ccdproc.trim_image(ccd, fits_section="[1:-16,:]" if chip > 5 else "[1:64,1:64]")
        ccd.write("chip%d_%s" % (chip, name), overwrite=True)
whole = CCDData.read(files[0], unit="adu")
print(whole.shape, whole.header["EXTNAME"])

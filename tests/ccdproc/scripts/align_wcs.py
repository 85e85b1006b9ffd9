# Images put onto the pixels of the first one by their WCS, then combined.
import ccdproc
import numpy as np
from astropy.nddata import CCDData
from astropy.wcs import WCS
from ccdproc import wcs_project

images = []
for n in range(1, 4):
    ccd = CCDData.read(f"raw/ngc3521_r_{n:03d}.fits", unit="adu")
    ccd = ccdproc.trim_image(ccd, fits_section=ccd.header["TRIMSEC"])
    ccd = ccdproc.cosmicray_lacosmic(ccd, sigclip=5, gain=1.5, readnoise=6.0)
    images.append(ccd)
target = images[0].wcs
print(target.wcs.crpix, WCS(images[0].header).wcs.ctype[0] if "CTYPE1" in images[0].header else "no cards")
reprojected = [wcs_project(img.copy(), target) for img in images]
for img in reprojected:
    print(img.shape, img.mask is None or int(img.mask.sum()), img.unit)
combiner = ccdproc.Combiner(reprojected)
combiner.sigma_clipping(low_thresh=3, high_thresh=3, func=np.ma.median)
stacked = combiner.average_combine()
stacked.wcs = target
stacked.header["OBJECT"] = images[0].header["OBJECT"]
edge = 8
stacked = stacked[edge:-edge, edge:-edge]
stacked.write("stacked.fits", overwrite=True)
ccdproc.Combiner(reprojected).median_combine().write("median.fits")
nearest = wcs_project(
    images[1].copy(), target, target_shape=(80, 70), order="nearest-neighbor", add_keyword={"REPROJ": "nearest"}
)
nearest.write("nearest.fits")
smooth = wcs_project(images[2], target, order="biquadratic", add_keyword=None)
print(np.isnan(smooth.data).sum() > 0, smooth.wcs is target)
smooth[12:-12, 12:-12].write("smooth.fits")
filled = reprojected[2]
filled.data[np.isnan(filled.data)] = 0.0
filled.write("filled.fits")

# Smoothing, deviations of the background, binning.
import warnings

import ccdproc
import numpy as np
from astropy.nddata import CCDData
from scipy import ndimage

ccd = CCDData.read("raw/ngc3521_r_001.fits", unit="adu")
ccd = ccd[:, :-16]
ccd.data = ccd.data.astype(np.float32)
smooth = ccdproc.median_filter(ccd, 5)
print(type(smooth).__name__, smooth.unit, smooth.data.dtype, smooth.header["OBJECT"])
smooth.write("smooth.fits")
for args, kwargs in (
    ((3,), {}),
    ((), {"size": (3, 7)}),
    ((), {"footprint": np.ones((3, 3)), "mode": "nearest"}),
    ((9, None), {}),
):
    print(float(ccdproc.median_filter(ccd.data, *args, **kwargs).sum()))
print(np.array_equal(ccdproc.median_filter(ccd.data, 7), ndimage.median_filter(ccd.data, 7)))
print(ccdproc.median_filter(ccd.data.astype(np.uint16), 3).dtype)
box = ccdproc.background_deviation_box(ccd.data, 25)
small = ccd.data[:40, :36]
running = ccdproc.background_deviation_filter(small.astype(float), 9)
print(box.shape, float(np.median(box)), float(np.median(running)))
CCDData(running, unit="adu").write("running.fits")
cleaned = ccdproc.cosmicray_median(ccd, error_image=box, thresh=5, mbox=11, rbox=11, gbox=0)
cleaned.write("cleaned.fits")
print(cleaned.mask.sum(), ccdproc.sigma_func(ccd), ccdproc.sigma_func(ccd.data, axis=0)[:3])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for bins in (2, (2, 4)):
        binned = ccdproc.block_reduce(ccd, bins)
        print(binned.shape, binned.unit, float(binned.data.sum()))
    binned.write("binned.fits")
    mean = ccdproc.block_average(ccd, 4)
    mean.write("mean.fits")
    ccdproc.block_reduce(ccd, 2, func=np.median).write("binned_median.fits")
    again = ccdproc.block_replicate(mean, 4, conserve_sum=False)
    again.write("again.fits")
print(ccdproc.block_reduce(ccd.data, 2).shape, ccdproc.block_replicate(small, 2).sum() / small.sum())
print(ccdproc.rebin(ccd, (20, 30)).shape, ccdproc.rebin(small, (80, 72)).shape)

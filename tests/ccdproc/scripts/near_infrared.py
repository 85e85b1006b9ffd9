# Dithered images: a sky from the images themselves, subtracted, then shifted and stacked.
import glob

import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
from astropy.stats import sigma_clipped_stats
from scipy import ndimage


def scale_to_median(arr):
    return 1.0 / np.ma.median(arr)


frames = [
    ccdproc.trim_image(CCDData.read(n, unit=u.adu), "[1:80,1:80]") for n in sorted(glob.glob("raw/ngc3521_*.fits"))
]
for frame in frames:
    mean, median, std = sigma_clipped_stats(frame.data, sigma=3.0, maxiters=5)
    mask = frame.data > median + 4 * std
    frame.mask = ndimage.binary_dilation(mask, iterations=1)
    print("%s %.2f %.2f %d" % (frame.header["FILTER"], median, std, frame.mask.sum()))
combiner = ccdproc.Combiner(frames)
combiner.scaling = scale_to_median
combiner.clip_extrema(nlow=1, nhigh=2)
sky = combiner.average_combine()
print(sky.mask.sum(), np.isnan(sky.data).sum())
sky.write("sky.fits")
sky.data[sky.mask] = np.nanmedian(sky.data)
sky.mask = None
sky.uncertainty = None
shifted = []
for i, frame in enumerate(frames):
    level = np.ma.median(np.ma.MaskedArray(frame.data, frame.mask))
    less = frame.subtract(sky.multiply(level))
    less.meta = frame.meta.copy()
    less.meta["SKYLEVEL"] = float(level)
    dy, dx = int(round(1.7 * (i % 3))), int(round(-2.3 * (i % 3)))
    moved = ccdproc.transform_image(less, np.roll, shift=(dy, dx), axis=(0, 1))
    shifted.append(moved)
out = ccdproc.combine(
    shifted,
    method="average",
    sigma_clip=True,
    sigma_clip_func=np.ma.median,
    sigma_clip_dev_func=np.ma.std,
    combine_uncertainty_function=np.ma.std,
)
out.write("stack.fits")
weights = 1 / np.array([np.nanstd(s.data) for s in shifted]) ** 2
stack = ccdproc.Combiner(shifted)
stack.weights = weights
stack.sigma_clipping(low_thresh=4, high_thresh=3, func=np.ma.mean, dev_func=np.ma.std)
stack.average_combine(scale_to=np.ones((len(shifted), 1, 1))).write("weighted.fits")

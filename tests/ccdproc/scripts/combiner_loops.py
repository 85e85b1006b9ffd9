# Clipping by hand until nothing changes, with the masked array that a Combiner holds.
import glob

import numpy as np
from astropy.stats import mad_std, sigma_clip
from ccdproc import CCDData, Combiner

biases = sorted(glob.glob("raw/bias_*.fits"))
c = Combiner([CCDData.read(f, unit="adu") for f in biases])
print(c.dtype, c.unit, len(c.ccd_list), c.data_arr.shape)
c.clip_extrema(nlow=1, nhigh=1)
print("extremes", c.data_arr.mask.sum())
old_n_masked = 0
new_n_masked = c.data_arr.mask.sum()
while new_n_masked > old_n_masked:
    c.sigma_clipping(low_thresh=3, high_thresh=3, func=np.ma.median, dev_func=np.ma.std)
    old_n_masked = new_n_masked
    new_n_masked = c.data_arr.mask.sum()
    print("masked", new_n_masked)
bias = c.average_combine()
bias.write("bias.fits")

flats = [CCDData.read("raw/flat_g_%03d.fits" % i, unit="adu") for i in range(1, 5)]
flats = [flat.subtract(bias) for flat in flats]
combiner = Combiner(flats, dtype=np.float32)
combiner.scaling = lambda arr: 1 / np.ma.average(arr)
print(np.round(combiner.scaling.ravel() * 1e5, 3))
old_n_masked, new_n_masked = 0, 1
while new_n_masked > old_n_masked:
    combiner.data_arr = sigma_clip(
        combiner.data_arr, sigma=2.5, maxiters=1, cenfunc=np.ma.mean, stdfunc=np.ma.std, axis=0, masked=True, copy=False
    )
    old_n_masked = new_n_masked
    new_n_masked = np.sum(combiner.data_arr.mask)
print("flat", new_n_masked)
master = combiner.median_combine()
master.header["OBJECT"] = "flat"
master.write("flat.fits")

other = Combiner(flats)
other.weights = np.array([1.0, 2.0, 0.5, 0.25])
other.minmax_clipping(min_clip=100, max_clip=13000)
other.average_combine().write("weighted.fits")
other.weights = None
other.data_arr[0, :5] = np.ma.masked
other.data_arr.mask[:, 8:10, 3] = True
other.sum_combine().write("sum.fits")
other.average_combine(scale_func=np.ma.average, uncertainty_func=np.std).write("average.fits")
result = other.median_combine(median_func=np.ma.median, uncertainty_func=mad_std)
print(result.mask.sum(), result.header["NCOMBINE"], result.data.dtype)
result.write("median.fits")

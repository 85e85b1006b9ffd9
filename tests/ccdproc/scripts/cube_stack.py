# Cubes of short exposures: planes combined, images of more axes.
import ccdproc
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from ccdproc import Combiner

cube = CCDData.read("cube.fits", unit=u.adu)
print(cube.shape, cube.data.dtype, cube.header["NAXIS3"])
combiner = Combiner(cube)
combiner.sigma_clipping(low_thresh=3, high_thresh=3)
combined = combiner.average_combine()
fits.writeto("lucky.fits", np.asarray(combined.data, dtype=np.float32))
planes = [cube[i] for i in range(cube.shape[0])]
print(planes[0].shape, planes[0].header["IMAGETYP"])
ccdproc.combine(planes, method="sum").write("summed.fits")
level = CCDData(np.full(cube.shape[1:], 1000.0), unit=u.adu)
less = ccdproc.subtract_bias(cube, level)
print(less.shape, float(less.data.mean()))
gained = ccdproc.gain_correct(less, 1.5 * u.electron / u.adu)
gained = ccdproc.create_deviation(gained, readnoise=6 * u.electron, disregard_nan=True)
gained.write("gained.fits")
flat = CCDData(np.linspace(0.9, 1.1, level.data.size).reshape(level.shape), unit=u.dimensionless_unscaled)
ccdproc.flat_correct(gained, flat).write("flattened.fits")
stack = Combiner([gained, gained.multiply(1.1), gained.multiply(0.9)])
stack.clip_extrema(nlow=1, nhigh=1)
print(stack.average_combine().shape)
stack.median_combine().write("median.fits")
spectra = [CCDData(cube.data[i, 5], unit=u.adu) for i in range(5)]
one = Combiner(spectra)
one.sigma_clipping(low_thresh=2, high_thresh=2, func="median", dev_func="mad_std")
print(one.data_arr.mask.sum(), one.median_combine().data[:4])
print(ccdproc.trim_image(cube, "[1:10,1:20,2:3]").shape, ccdproc.block_average(cube, (1, 2, 2)).shape)
ff = fits.open("raw/bias_001.fits")
names = ["raw/bias_00%d.fits" % i for i in range(1, 6)]
ff[0].data = Combiner([CCDData(fits.getdata(n), unit="adu") for n in names]).median_combine().data
ff.writeto("med.fits", overwrite=True)

# A long slit: lamps summed, a response, rows that are not lit cut off, spectra taken out.
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.modeling import fitting, models
from ccdproc import CCDData, Combiner, cosmicray_lacosmic, trim_image


def read(file, EXPTIME="EXPTIME"):
    img = CCDData.read(file, unit=u.adu)
    if "BUNIT" not in img.header:
        img.header["BUNIT"] = "adu"
    img = trim_image(img, img.header["TRIMSEC"])
    if img.header[EXPTIME] > 0:
        img = img.divide(img.header[EXPTIME] * u.s)
    return img


def biascombine(files):
    medbias = Combiner([trim_image(CCDData.read(f, unit="adu"), "[1:64,1:60]") for f in files]).median_combine()
    return medbias


bias = biascombine(["raw/bias_001.fits", "raw/bias_002.fits", "raw/bias_003.fits"])
print(bias.shape, bias.header)
lamps = [read("raw/flat_r_%03d.fits" % (i + 1)) for i in range(4)]
print(lamps[0].unit, lamps[0].header["EXPTIME"], lamps[0].meta is lamps[0].header)
flat = Combiner(lamps).sum_combine()
flat = flat.divide(flat.data.mean())
flat.mask = flat.data < 0.5
profile = np.ma.median(np.ma.array(flat.data, mask=flat.mask), axis=0)
x = np.arange(profile.size)
fit = fitting.LinearLSQFitter()(models.Legendre1D(4), x, profile)
response = CCDData(flat.data / fit(x), unit=u.dimensionless_unscaled, mask=flat.mask)
response.write("response.fits")
lit = np.where(np.median(flat.data, axis=1) > 0.5)[0]
ilum = slice(int(lit.min()), int(lit.max()) + 1)
science = []
for name in ("raw/ngc3521_r_001.fits", "raw/ngc3521_r_002.fits"):
    img = read(name)
    cleaned = cosmicray_lacosmic(img.data * 60, gain=0.6, readnoise=6, sigclip=35)
    img = CCDData(cleaned[0] / 60, unit=img.unit, header=img.header)
    img = img[ilum, :].divide(response[ilum, :])
    science.append(img)
    print(name, img.unit, img.shape, bool(img.mask.any()))
two = Combiner(science).average_combine()
spectrum = np.ma.array(two.data, mask=two.mask).sum(axis=0)
fits.writeto("spectrum.fits", spectrum.filled(0).astype("f4"), header=science[0].header, overwrite=True)
two.write("two.fits")

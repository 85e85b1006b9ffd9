# What steps write into headers, and what callers say about it.
import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
from ccdproc import Keyword

ccd = CCDData.read("raw/ngc3521_g_001.fits", unit="adu")
before = list(ccd.header)


def new(image):
    return ["%s = %s" % (key, value) for key, value in image.header.items() if key not in before]


gain = Keyword("GAIN", unit=u.electron / u.adu)
print(gain.value, gain.value_from(ccd.header), gain.value)
noise = Keyword("RDNOISE", u.electron, value=6.0)
flipped = ccdproc.transform_image(ccd, np.flipud)
shifted = ccdproc.transform_image(ccd, np.roll, shift=3, axis=1, add_keyword="rolled")
turned = ccdproc.transform_image(ccd, lambda a, k=1: np.rot90(a, k), k=3)
print(new(flipped), new(shifted), new(turned), turned.shape)
turned.write("turned.fits")
steps = ccdproc.gain_correct(ccd, gain)
print(new(steps), steps.unit)
steps = ccdproc.gain_correct(ccd, 1.5 * u.electron / u.adu, add_keyword={"GAINCOR": "yes", "GAINVAL": 1.5})
print(new(steps))
steps = ccdproc.create_deviation(steps, readnoise=noise.value, add_keyword=None)
print(new(steps))
steps = ccdproc.trim_image(steps, fits_section=steps.header["TRIMSEC"], add_keyword=Keyword("TRIMMED", value="true"))
print(new(steps))
ccdproc.conf.auto_logging = False
quiet = ccdproc.subtract_bias(steps, steps)
print(len(new(quiet)) - len(new(steps)))
ccdproc.conf.auto_logging = True
loud = ccdproc.subtract_bias(quiet, master=steps)
loud = ccdproc.subtract_dark(loud, loud, exposure_time="EXPTIME", exposure_unit=u.s, scale=True)
loud = ccdproc.flat_correct(loud, steps, 0.1)
print(new(loud))
loud.header["history"] = "all done"
loud.write("loud.fits")
plain = CCDData(np.ones((4, 5)), unit="adu", meta={"exposure": 30.0, "Filter": "V"})
plain = ccdproc.create_deviation(plain, gain=1.5 * u.electron / u.adu, readnoise=5 * u.electron)
plain = ccdproc.subtract_overscan(plain, overscan=plain[:, :2], overscan_axis=1)
print(sorted(plain.meta), plain.meta["create_deviation"] if "create_deviation" in plain.meta else plain.meta)
print(type(plain.meta).__name__)

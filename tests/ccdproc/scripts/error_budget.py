# Uncertainties from the raw frames to the ratio of signal to noise.
import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty

gain = 1.5 * u.electron / u.adu
readnoise = 6.0 * u.electron


def load(name):
    ccd = CCDData.read("raw/%s.fits" % name, unit=u.adu)
    ccd = ccdproc.subtract_overscan(ccd, fits_section=ccd.header["BIASSEC"], median=True, overscan_axis=1)
    return ccdproc.trim_image(ccd, fits_section=ccd.header["TRIMSEC"])


def with_error(ccd):
    return ccdproc.create_deviation(ccd, gain=gain, readnoise=readnoise, disregard_nan=True)


bias = ccdproc.combine([with_error(load("bias_%03d" % i)) for i in range(1, 7)], combine_uncertainty_function=np.ma.std)
dark = ccdproc.combine([with_error(load(f"dark_{i:03d}")) for i in range(4, 7)], method="median")
dark = ccdproc.subtract_bias(dark, bias)
flat = ccdproc.combine(
    [with_error(load(f"flat_g_{i:03d}")) for i in range(1, 5)], method="median", scale=[1.0, 1.15, 1.35, 1.6]
)
flat = ccdproc.subtract_bias(flat, bias)
for name in ("ngc3521_g_001", "ngc3521_g_002"):
    light = load(name)
    light = ccdproc.create_deviation(light, gain=gain, readnoise=readnoise)
    light = ccdproc.subtract_bias(light, bias)
    light = ccdproc.subtract_dark(
        light, dark, data_exposure=light.header["EXPTIME"] * u.s, dark_exposure=2 * u.min, scale=True
    )
    light = ccdproc.flat_correct(light, flat, min_value=0.1)
    light = ccdproc.gain_correct(light, gain)
    ratio = light.data / light.uncertainty.array
    print(name, light.unit, light.uncertainty.uncertainty_type, round(float(np.median(ratio)), 3))
    light.write(name + "_red.fits", overwrite=True)
    light.header["EXPOSURE"] = light.header.get("EXPTIME")
    rate = light.divide(light.header["EXPOSURE"] * u.s)
    rate.write(name + "_rate.fits", overwrite=True)
variance = CCDData(light.data, unit=light.unit, uncertainty=VarianceUncertainty(light.uncertainty.array**2))
plain = CCDData(np.full(light.shape, 2.0), unit=light.unit)
print(type(ccdproc.subtract_bias(variance, plain).uncertainty).__name__)
total = light.add(light).multiply(0.5)
print(type(total.uncertainty) is StdDevUncertainty, total.uncertainty.array.mean() / light.uncertainty.array.mean())
photons = ccdproc.gain_correct(load("flat_r_001"), ccdproc.Keyword("GAIN", unit=u.photon / u.adu))
print(photons.unit, photons.data.mean())

# A class of its own for images, flags, plain headers, cut-outs, and how they are written.
import ccdproc
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D, StdDevUncertainty


class Frame(CCDData):
    @property
    def exposure(self):
        return self.header["EXPTIME"] * u.s


raw = Frame.read("raw/ngc3521_r_002.fits", unit="adu")
print(type(raw).__name__, raw.exposure)
frame = ccdproc.trim_image(raw, raw.header["TRIMSEC"])
frame = ccdproc.create_deviation(frame, gain=1.5 * u.electron / u.adu, readnoise=6 * u.electron)
frame = ccdproc.gain_correct(frame, 1.5 * u.electron / u.adu)
bias = Frame(np.full(frame.shape, 1500.0), unit="electron")
for step in (
    ccdproc.subtract_bias(frame, bias),
    ccdproc.flat_correct(frame, bias),
    ccdproc.cosmicray_lacosmic(frame),
    ccdproc.cosmicray_median(frame, rbox=3),
):
    print(type(step).__name__, step.unit, type(step.uncertainty).__name__, step.mask is None)
    step.write("step.fits", overwrite=True)
print(
    type(ccdproc.combine([frame, frame, bias.add(3 * u.electron)])).__name__,
    type(ccdproc.Combiner([frame, frame]).average_combine()).__name__,
)
flagged = CCDData(np.arange(30.0).reshape(5, 6), unit="adu", flags=np.arange(30).reshape(5, 6), meta={"a": 1})
print(ccdproc.gain_correct(flagged, 2.0).meta, ccdproc.create_deviation(flagged, readnoise=2 * u.adu).flags is not None)
flagged.psf = np.ones((3, 3))
print(ccdproc.transform_image(flagged, np.fliplr).data[0], ccdproc.trim_image(flagged, "[2:4,1:3]").data.tolist())
cut = Cutout2D(frame.data, (40, 30), (21, 15), wcs=frame.wcs)
small = CCDData(cut.data, unit=frame.unit, wcs=cut.wcs, uncertainty=StdDevUncertainty(np.sqrt(cut.data)))
hdus = small.to_hdu(hdu_mask=None, hdu_uncertainty="ERR")
hdus.writeto("cut.fits")
print([h.name for h in hdus], round(hdus[0].header["CRPIX1"], 3))
again = CCDData.read("cut.fits", hdu_uncertainty="ERR")
print(again.unit, again.uncertainty.array.shape, again.wcs.has_celestial)
window = frame[20:60, 10:50]
window.mask = np.zeros(window.shape, dtype=bool)
window.mask[3:5, 3:5] = True
window = ccdproc.subtract_bias(window, window.multiply(0.5))
window.write("window.fits", hdu_mask="BPM")
with fits.open("window.fits") as f:
    print([h.name for h in f], f[0].header["NAXIS1"], f["BPM"].data.sum())
print(frame.mean().data.shape, frame.sum().unit, round(float(frame.median().data), 2))
quantity = ccdproc.gain_correct(raw, u.Quantity(1.5, "electron / adu"))
print(quantity.unit, ccdproc.gain_correct(raw, np.float32(2)).data.dtype, ccdproc.gain_correct(raw, 2).data.dtype)

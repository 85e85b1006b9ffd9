# Cosmic rays found in several ways.
import glob

import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
from ccdproc import cosmicray_lacosmic, cosmicray_median

for f in sorted(glob.glob("raw/ngc3521_g*.fits")):
    data = ccdproc.CCDData.read(f, unit=u.adu)
    data = ccdproc.trim_image(data, data.header["TRIMSEC"])
    cr_cleaned = ccdproc.cosmicray_lacosmic(data, sigclip=5)
    cr_cleaned.write("c" + f.split("/")[-1])
    print(f, cr_cleaned.unit, cr_cleaned.mask.sum())
value = 0.16 * float(data.header["EXPTIME"]) + 1.2
array, mask = cosmicray_lacosmic(
    data.data,
    sigclip=2.5,
    sigfrac=value,
    objlim=value,
    gain=float(data.header["GAIN"]),
    readnoise=float(data.header["RDNOISE"]),
    satlevel=np.inf,
    sepmed=True,
    fsmode="median",
    psfmodel="gaussy",
    verbose=False,
)
print(type(array).__name__, mask.sum(), float(np.mean(array)))
electrons = ccdproc.gain_correct(data, 1.5 * u.electron / u.adu)
electrons = ccdproc.create_deviation(electrons, readnoise=6 * u.electron)
for options in (
    {"sigclip": 4.5, "cleantype": "medmask"},
    {"sigclip": 7.0, "objlim": 7, "satlevel": 50000.0},
    {"fsmode": "convolve", "psfmodel": "gauss", "psffwhm": 3.0, "psfsize": 9, "niter": 2},
    {"sepmed": False, "cleantype": "idw", "readnoise": 6 * u.electron},
    {"fsmode": "convolve", "psfmodel": "moffat", "psfbeta": 3.0},
    {"inbkg": np.full(electrons.shape, 1500.0, np.float32)},
):
    cleaned = cosmicray_lacosmic(electrons, **options)
    print(sorted(options), cleaned.mask.sum(), cleaned.unit, round(float(cleaned.data.mean()), 1))
    cleaned.write("lacosmic_" + "_".join(sorted(options)) + ".fits")
cleaned = cosmicray_median(electrons, mbox=11, rbox=11, gbox=5)
cleaned.write("median.fits")
found = cosmicray_median(electrons.data, error_image=50.0, thresh=4, mbox=7, gbox=0, rbox=5)
print(found[1].sum(), cosmicray_median(electrons.data.astype("float32"), None, 6)[1].sum())
again = electrons.copy()
again.mask = cleaned.mask
CCDData(cosmicray_lacosmic(again).data, unit="electron").write("again.fits")
no_gain = cosmicray_lacosmic(data.data.astype(float), gain_apply=False, gain=1.5)[0]
print(float(no_gain.sum()))

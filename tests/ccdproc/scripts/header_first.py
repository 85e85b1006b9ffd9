# Lists of names in text files, old-style paths, headers edited before and after, errors that end a script.
import sys

import ccdproc
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

path = "raw/%s"
names = [line.strip() for line in open("flats.list") if not line.startswith("#")]
master_bias = ccdproc.combine([path % ("bias_%03d.fits" % i) for i in range(1, 7)], method="median", unit=u.adu)
master_bias.meta["exposure"] = 0.0
master_bias.header.set("NFRAMES", 6, "number of frames")
master_bias.header.pop("COMMENT", None)
flat_list = []
for name in names:
    ccd = CCDData.read(path % name, unit=u.adu)
    if ccd.header["FILTER"].strip() != "r":
        print("ERROR: wrong filter")
        sys.exit()
    ccd = ccdproc.subtract_bias(ccd, master_bias)
    ccd.data = ccd.data / np.median(ccd.data)
    flat_list.append(ccd)
if len(flat_list) == 0:
    sys.exit("no flats")
master_flat = ccdproc.combine(flat_list, method="median", dtype="float32")
filter_name = ccd.header["FILTER"].strip()
master_flat.write("master_flat_" + filter_name + ".fits", overwrite=True)
again = CCDData.read("master_flat_r.fits")
print(again.unit, again.data.dtype, again.uncertainty.array.dtype, again.mask.dtype)
hdu = fits.open(path % "ngc3521_r_003.fits")
light = CCDData(hdu[0].data.astype("float32"), unit=u.electron, header=hdu[0].header)
light.header["BUNIT"] = "electron"
del light.header["OBSERVER"]
master_bias.unit = u.electron
light = ccdproc.subtract_bias(light, master_bias, add_keyword={"calib": "subtracted bias"})
light = ccdproc.flat_correct(light, again, add_keyword=False)
light.header["EXPTIME"] = (light.header["EXPTIME"], "shutter open")
light.header.add_history("flat fielded")
light.meta["lon-Keyword"] = "text"
fits.PrimaryHDU(light.data.astype(np.float32), header=light.header).writeto("light.fits")
light.write("light_ccd.fits")
print(list(light.header)[-6:])
ccdproc.subtract_dark(light, master_bias, exposure_time="NOWHERE", exposure_unit=u.s)
print("not reached")

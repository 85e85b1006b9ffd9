# Bad pixels from the ratio of two flats, kept as a mask that later steps use.
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData
from ccdproc import ImageFileCollection, ccdmask, combine, flat_correct, subtract_bias, trim_image

ifc = ImageFileCollection("raw")
section = ifc.summary["trimsec"][0]
bias = trim_image(combine(ifc.files_filtered(imagetyp="BIAS", include_path=True), unit="adu", method="median"), section)
bias.uncertainty = None
flats = []
for filt in "gr":
    one = combine(ifc.files_filtered(imagetyp="FLAT", filter=filt, include_path=True), unit="adu", sigma_clip=True)
    flats.append(subtract_bias(trim_image(one, section), bias))
ratio = flats[0].divide(flats[1])
print(ratio.unit, ratio.uncertainty.array.mean() > 0)
maskr = ccdmask(ratio)
print(type(maskr).__name__, maskr.dtype, maskr.sum())
for kwargs in (
    {"findbadcolumns": True},
    {"byblocks": True},
    {"ncmed": 5, "nlmed": 5, "ncsig": 11, "nlsig": 9, "lsigma": 5, "hsigma": 6, "ngood": 3, "findbadcolumns": True},
):
    print(kwargs, ccdmask(ratio, **kwargs).sum())
mask_as_ccd = CCDData(data=maskr.astype("uint8"), unit="")
mask_as_ccd.header["imagetyp"] = "flat mask"
mask_as_ccd.write("mask_from_ccdmask.fits")
dark = combine(ifc.files_filtered(imagetyp="DARK", exptime=120, include_path=True), unit="adu")
dark = trim_image(dark, section).subtract(bias)
hot = dark.data > 200
CCDData(hot.astype("uint8"), unit="").write("hot.fits")
known = CCDData.read("badpix.fits", unit="")
for number in (1, 2):
    ccd = CCDData.read("raw/ngc3521_g_00%d.fits" % number, unit="adu")
    ccd = trim_image(ccd, section)
    ccd.mask = maskr | hot | known.data.astype(bool)
    ccd = subtract_bias(ccd, bias)
    flat = flats[0].copy()
    flat.mask = maskr
    ccd = flat_correct(ccd, flat, norm_value=np.median(flat.data))
    ccd.data[ccd.mask] = 0
    ccd.write("masked_%d.fits" % number)
    filled = np.ma.array(ccd.data, mask=ccd.mask).filled(np.nan)
    print(np.nanmedian(filled), ccd.mask.sum())
with fits.open("masked_1.fits") as hdus:
    print([hdu.name for hdu in hdus], hdus["MASK"].data.dtype)
stack = combine(["masked_1.fits", "masked_2.fits"], method="average", sigma_clip=True, sigma_clip_func=np.ma.median)
print(stack.mask.sum(), stack.unit)
stack.write("stack.fits")

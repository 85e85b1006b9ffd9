# Masters by a median function of the script's own, and headers that are put together by hand.
import os

import ccdproc
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData


def bn_median(masked_array, axis=None):
    data = masked_array.filled(fill_value=np.nan)
    med = np.nanmedian(data, axis=axis)
    return np.ma.array(med, mask=np.isnan(med))


def scaling_func(arr):
    return 1 / np.ma.median(arr)


def master_zero(imlist):
    combiner = ccdproc.Combiner([CCDData(fits.getdata(im), unit="adu", meta=fits.getheader(im)) for im in imlist])
    mzero = combiner.median_combine(median_func=bn_median)
    mzero.header = fits.getheader(imlist[0])
    mzero.header["NCOMBINE"] = len(imlist)
    for n, im in enumerate(imlist):
        mzero.header[f"COMB{n}"] = os.path.basename(im)
    dateobs = mzero.header["DATE-OBS"].split("T")[0].replace("-", "")
    mzero.meta["FILENAME"] = f"{dateobs}-zero.fits"
    mzero.write(f"{dateobs}-zero.fits", overwrite=True)
    return mzero


def master_flat(imlist, mzero, filte):
    images = []
    for im in imlist:
        hdu = fits.open(im)[0]
        image = CCDData(hdu.data, unit="adu", meta=hdu.header)
        images.append(ccdproc.subtract_bias(image, mzero))
    combiner = ccdproc.Combiner(images)
    combiner.minmax_clipping(min_clip=2000)
    combiner.scaling = scaling_func
    mflat = combiner.median_combine(median_func=bn_median)
    mflat.header = images[0].header
    mflat.header["NCOMBINE"] = len(images)
    mflat.write("n" + filte + ".fits", overwrite=True)
    return mflat


ic = ccdproc.ImageFileCollection("raw", keywords="*")
zeros = ic.files_filtered(imagetyp="Bias", include_path=True)
mzero = master_zero(zeros)
for filte in set(ic.filter(imagetyp="flat").summary["filter"]):
    mflat = master_flat(list(ic.files_filtered(imagetyp="FLAT", filter=filte, include_path=True)), mzero, filte)
    for im in ic.files_filtered(imagetyp="LIGHT", filter=filte, include_path=True):
        data, header = fits.getdata(im, header=True)
        nccd = CCDData(data, unit="adu", header=header)
        nccd = ccdproc.subtract_bias(nccd, mzero)
        nccd = ccdproc.flat_correct(nccd, mflat, min_value=0.1)
        fits.writeto("fz" + os.path.basename(im), nccd.data, nccd.header, overwrite=True)
print(sorted(os.listdir(".")))

# Lights reduced in processes of their own.
import os
from functools import partial
from multiprocessing import Pool

import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData


def process(name, bias, flat, out):
    raw = CCDData.read(name, unit=u.adu)
    red = ccdproc.ccd_process(
        raw,
        oscan=raw.header["BIASSEC"],
        trim=raw.header["TRIMSEC"],
        error=True,
        master_bias=bias,
        gain=raw.header["GAIN"] * u.electron / u.adu,
        readnoise=raw.header["RDNOISE"] * u.electron,
        gain_corrected=False,
    )
    clean, mask = ccdproc.cosmicray_lacosmic(red.data, sigclip=5, readnoise=6.0, gain_apply=False)
    red.data = np.asarray(clean)
    red.mask = mask
    red = ccdproc.flat_correct(red, flat)
    red.header["NCOSMIC"] = int(mask.sum())
    red.write(os.path.join(out, os.path.basename(name)), overwrite=True)
    return os.path.basename(name), int(mask.sum()), float(np.median(red.data))


def main():
    ic = ccdproc.ImageFileCollection(location="raw")
    kwargs = {"oscan": ic.summary["biassec"][0], "trim": ic.summary["trimsec"][0]}
    biases = [ccdproc.ccd_process(ccd, **kwargs) for ccd in ic.ccds(imagetyp="BIAS", ccd_kwargs={"unit": "adu"})]
    bias = ccdproc.combine(biases, method="median")
    bias.uncertainty = None
    os.makedirs("out", exist_ok=True)
    for filt in ["g", "r"]:
        flats = [
            ccdproc.ccd_process(ccd, **kwargs, master_bias=bias)
            for ccd in ic.ccds(imagetyp="FLAT", filter=filt, ccd_kwargs={"unit": "adu"})
        ]
        flat = ccdproc.combine(flats, method="median", scale=lambda a: 1 / np.mean(a))
        flat.uncertainty = None
        names = ic.files_filtered(imagetyp="LIGHT", filter=filt, include_path=True)
        with Pool(2) as pool:
            for row in pool.map(partial(process, bias=bias, flat=flat, out="out"), names):
                print(*row)


if __name__ == "__main__":
    main()

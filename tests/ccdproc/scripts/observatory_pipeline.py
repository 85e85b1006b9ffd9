# An observatory's pipeline: a class, options on the command line, everything in one call, Keywords, logging.
import argparse
import logging
import os

import ccdproc
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from ccdproc import Keyword

log = logging.getLogger("pipeline")


class Calibration:
    def __init__(self, folder, badpix=None):
        self.collection = ccdproc.ImageFileCollection(folder, keywords=["imagetyp", "exptime", "filter", "object"])
        self.bad = None if badpix is None else fits.getdata(badpix).astype(bool)
        self.masters = {}

    def _trimmed(self, name, **kwargs):
        ccd = CCDData.read(name, unit="adu")
        return ccdproc.ccd_process(ccd, oscan=ccd.header["BIASSEC"], trim=ccd.header["TRIMSEC"], **kwargs)

    def _files(self, **kwargs):
        return [os.path.join(self.collection.location, f) for f in self.collection.files_filtered(**kwargs)]

    def master(self, kind, **kwargs):
        gain = 1.5 * u.electron / u.adu
        if kind not in self.masters:
            options = {"error": True, "gain": gain, "readnoise": 6 * u.electron}
            if kind != "BIAS":
                options["master_bias"] = self.master("BIAS")
            frames = [self._trimmed(f, **options) for f in self._files(imagetyp=kind, **kwargs)]
            log.warning("%d frames of %s", len(frames), kind)
            result = ccdproc.combine(
                frames, method="average", sigma_clip=True, sigma_clip_low_thresh=3, sigma_clip_high_thresh=3
            )
            self.masters[kind] = result
        return self.masters[kind]

    def __call__(self, name, dark_scale):
        header = fits.getheader(name)
        exposure = Keyword("EXPTIME", unit=u.s)
        result = self._trimmed(
            name,
            error=True,
            master_bias=self.master("BIAS"),
            dark_frame=self.master("DARK", exptime=120.0),
            master_flat=self.master("FLAT", filter=header["FILTER"]),
            bad_pixel_mask=self.bad,
            gain=header["GAIN"] * u.electron / u.adu,
            readnoise=header["RDNOISE"] * u.electron,
            exposure_key=exposure,
            dark_scale=dark_scale,
            min_value=0.2,
        )
        log.warning("exposure %s", exposure.value)
        result.header["L1MEAN"] = (float(np.mean(result.data)), "[electrons] mean")
        result.header.add_history("reduced")
        return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Reduce a night")
    parser.add_argument("--raw", default="raw")
    parser.add_argument("--no-scale", action="store_false", dest="scale")
    args = parser.parse_args()
    pipeline = Calibration(args.raw, "badpix.fits")
    for number in range(1, 4):
        out = pipeline(os.path.join(args.raw, "ngc3521_g_%03d.fits" % number), args.scale)
        out.write("ngc3521_%d.fits" % number, overwrite=True)
    for kind, ccd in pipeline.masters.items():
        print(kind, ccd.unit, ccd.shape, ccd.mask.any())

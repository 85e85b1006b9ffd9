# A course's calibration, step by step: overscan, bias, darks by exposure, flats by filter, lights.
import os
from pathlib import Path

import ccdproc as ccdp
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
from astropy.stats import mad_std

raw = ccdp.ImageFileCollection(Path("raw"))
calibrated_path = Path(".", "reduced")
calibrated_path.mkdir(exist_ok=True)
print(raw.summary["file", "imagetyp", "filter", "exptime", "naxis1", "naxis2"])


def inv_median(a):
    return 1 / np.median(a)


def find_nearest_dark_exposure(image, dark_exposure_times, tolerance=0.5):
    dark_exposures = np.array(list(dark_exposure_times))
    idx = np.argmin(np.abs(dark_exposures - image.header["exptime"]))
    closest_dark_exposure = dark_exposures[idx]
    if tolerance is not None and np.abs(image.header["exptime"] - closest_dark_exposure) > tolerance:
        raise RuntimeError("Closest dark exposure time is {}".format(closest_dark_exposure))
    return closest_dark_exposure


def no_overscan(ccd):
    ccd = ccdp.subtract_overscan(ccd, overscan=ccd[:, -16:], median=True)
    return ccdp.trim_image(ccd[:, :-16])


for ccd, file_name in raw.ccds(imagetyp="BIAS", return_fname=True, ccd_kwargs={"unit": "adu"}):
    no_overscan(ccd).write(calibrated_path / file_name)

reduced = ccdp.ImageFileCollection(calibrated_path)
calibrated_biases = reduced.files_filtered(imagetyp="bias", include_path=True)
combined_bias = ccdp.combine(
    calibrated_biases,
    method="average",
    sigma_clip=True,
    sigma_clip_low_thresh=5,
    sigma_clip_high_thresh=5,
    sigma_clip_func=np.ma.median,
    sigma_clip_dev_func=mad_std,
    mem_limit=350e6,
)
combined_bias.meta["combined"] = True
combined_bias.write(calibrated_path / "combined_bias.fits", overwrite=True)

for ccd, file_name in raw.ccds(imagetyp="dark", return_fname=True, ccd_kwargs=dict(unit="adu")):
    ccd = ccdp.subtract_bias(no_overscan(ccd), combined_bias)
    ccd.write(calibrated_path / file_name, overwrite=True)

reduced.refresh()
darks = reduced.summary["imagetyp"] == "DARK"
dark_times = set(reduced.summary["exptime"][darks])
for exp_time in sorted(dark_times):
    to_combine = reduced.files_filtered(imagetyp="dark", exptime=exp_time, include_path=True)
    combined_dark = ccdp.combine(
        to_combine,
        method="average",
        sigma_clip=True,
        sigma_clip_low_thresh=5,
        sigma_clip_high_thresh=5,
        sigma_clip_func=np.ma.median,
        signma_clip_dev_func=mad_std,
        mem_limit=350e6,
    )
    combined_dark.meta["combined"] = True
    combined_dark.write(calibrated_path / "combined_dark_{:6.3f}.fits".format(exp_time))

reduced.refresh()
combined_darks = {ccd.header["exptime"]: ccd for ccd in reduced.ccds(imagetyp="dark", combined=True)}
print(sorted(combined_darks))

for ccd, file_name in raw.ccds(imagetyp="FLAT", return_fname=True, ccd_kwargs={"unit": "adu"}):
    ccd = ccdp.subtract_bias(no_overscan(ccd), combined_bias)
    closest_dark = find_nearest_dark_exposure(ccd, combined_darks.keys(), tolerance=None)
    ccd = ccdp.subtract_dark(
        ccd, combined_darks[closest_dark], exposure_time="exptime", exposure_unit=u.second, scale=True
    )
    ccd.write(calibrated_path / ("flat-" + file_name))

ifc = ccdp.ImageFileCollection(calibrated_path)
flat_filters = set(h["FILTER"] for h in ifc.headers(imagetyp="FLAT"))
for filt in sorted(flat_filters):
    to_combine = ifc.files_filtered(imagetyp="FLAT", filter=filt, include_path=True)
    combined_flat = ccdp.combine(
        to_combine,
        method="average",
        scale=inv_median,
        sigma_clip=True,
        sigma_clip_low_thresh=5,
        sigma_clip_high_thresh=5,
        sigma_clip_func=np.ma.median,
        sigma_clip_dev_func=mad_std,
        mem_limit=350e6,
    )
    combined_flat.meta["combined"] = True
    combined_flat.write(calibrated_path / "combined_flat_filter_{}.fits".format(filt.replace("''", "p")))

ifc.refresh()
combined_flats = {ccd.header["filter"]: ccd for ccd in ifc.ccds(imagetyp="FLAT", combined=True)}
all_reds = []
for light, file_name in raw.ccds(imagetyp="LIGHT", return_fname=True, ccd_kwargs=dict(unit="adu")):
    reduced_light = ccdp.subtract_bias(no_overscan(light), combined_bias)
    closest_dark = find_nearest_dark_exposure(reduced_light, combined_darks.keys(), tolerance=100)
    reduced_light = ccdp.subtract_dark(
        reduced_light,
        combined_darks[closest_dark],
        exposure_time="exptime",
        exposure_unit=u.second,
        scale=True,
    )
    good_flat = combined_flats[reduced_light.header["filter"]]
    reduced_light = ccdp.flat_correct(reduced_light, good_flat)
    all_reds.append(reduced_light)
    reduced_light.write(os.path.join("reduced", file_name))
print(len(all_reds), all_reds[0].unit, np.median(all_reds[0].data))

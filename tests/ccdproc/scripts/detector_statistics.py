# Gain and read noise from pairs of frames, levels against time, everything into tables.
import os

import ccdproc
import numpy as np
from astropy.io import fits
from astropy.stats import sigma_clipped_stats
from astropy.table import Table
from astropy.time import Time

ic = ccdproc.ImageFileCollection(os.path.join(os.getcwd(), "raw"), glob_include="*.fit*")
bias_files = ic.files_filtered(imagetyp="bias")
print("Parsing {} files".format(len(bias_files)))
rows = []
for fname in bias_files:
    with fits.open(os.path.join(ic.location, fname)) as hdu:
        when = Time(hdu[0].header["DATE-OBS"]).mjd
        mean, median, std = sigma_clipped_stats(hdu[0].data)
        rows.append((str(fname), when, mean, median, std))
Table(rows=rows, names=["file", "mjd", "mean", "median", "std"]).write("bias.csv", format="ascii.csv")
gains = []
for filt in ("g", "r"):
    f1, f2 = (next(ic.data(imagetyp="flat", filter=filt, exptime=t)).astype(float)[10:60, 10:60] for t in (5.0, 6.0))
    b1, b2 = (data[10:60, 10:60].astype(float) for data in list(ic.data(imagetyp="bias"))[:2])
    f2 = f2 * (np.mean(f1) - np.mean(b1)) / (np.mean(f2) - np.mean(b2))
    gain = ((f1.mean() + f2.mean()) - (b1.mean() + b2.mean())) / (np.var(f1 - f2) - np.var(b1 - b2))
    noise = gain * np.std(b1 - b2) / np.sqrt(2)
    gains.append((filt, gain, noise))
    print("%s gain %.4f noise %.4f" % (filt, gain, noise))
deviation = []
for hdu, name in ic.hdus(return_fname=True, imagetyp="DARK"):
    deviation.append((name, ccdproc.sigma_func(hdu.data), hdu.header["CCD-TEMP"], hdu.data.shape))
print(deviation)
c = ccdproc.Combiner(ic.ccds(imagetyp="BIAS", ccd_kwargs={"unit": "adu"}))
noise_map = c.average_combine().uncertainty.array * np.sqrt(6)
np.savetxt("noise_profile.txt", np.median(noise_map, axis=0), fmt="%.4f")
c.minmax_clipping(max_clip=1e6)
print(c.data_arr.std(axis=0).mean(), np.ma.median(c.data_arr), c.data_arr.mask.any())
groups = {}
for row in ic.summary:
    groups.setdefault((row["imagetyp"], row["filter"], row["exptime"]), []).append(row["file"])
for key in sorted(groups):
    print(key, len(groups[key]))

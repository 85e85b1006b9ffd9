# What a night has: tables, chosen and sorted, and lists of files.
import csv

import numpy as np
from astropy.table import Table
from ccdproc import ImageFileCollection

keys = ["imagetyp", "OBJECT", "exptime", "filter", "date-obs", "ccd-temp", "airmass"]
ic = ImageFileCollection("raw", keywords=keys)
print(ic.keywords)
print(ic)
for row in ic.summary:
    print("%-22s %-6s %6.1f %s" % (row["file"], row["imagetyp"], row["exptime"], row["filter"]))
print(sorted(ic.values("filter", unique=True)), ic.values("exptime")[:4])
lights = ic.filter(imagetyp="light", filter="[gr]", regex_match=True)
print(len(lights.files), sorted(f.split("/")[-1] for f in lights.files), lights.location)
ic.sort(["airmass"])
print(ic.files[:3], ic.summary["airmass"][0])
ic.sort(keys=["filter", "exptime"])
print(list(ic.files_filtered(filter="r", imagetyp="FLAT")))
print(list(ic.files_filtered(regex_match=True, object="ngc.*", exptime=60)))
print(list(ic.files_filtered(imagetyp="light", object=None)), len(ic.files_filtered(filter="*", observer="A. Student")))
table = ic.summary
mask = (table["imagetyp"] == "DARK") & (table["exptime"] > 60)
print(list(table["file"][mask]), type(table["file"]).__name__, table.masked)
table["night"] = ["2026-04-21"] * len(table)
table.remove_column("ccd-temp")
Table(table).write("summary.csv", format="ascii.csv", overwrite=True)
by_type = ic.summary.group_by("imagetyp")
for key, group in zip(by_type.groups.keys, by_type.groups):
    print(key["imagetyp"], len(group), np.unique(group["exptime"]))
frame = ic.summary.to_pandas()
print(frame.groupby("imagetyp")["exptime"].sum().to_dict())
with open("files.csv", "w", newline="") as out:
    writer = csv.writer(out)
    for h, fname in ic.headers(return_fname=True, imagetyp="LIGHT"):
        writer.writerow([fname, h["DATE-OBS"], h["AIRMASS"], h.get("NOTHING", "")])
ic.keywords = ["exptime", "gain"]
print(ic.summary.colnames, ic.summary["gain"].max())
del ic.keywords
print(ic.keywords, ImageFileCollection("raw", glob_include="*_g_*", glob_exclude="flat*").files)
every = ImageFileCollection(".", keywords="*", filenames=["focus.fits.gz", "cube.fits", "badpix.fits"])
print(every.summary["file", "naxis", "naxis3", "filter", "comment"])
print(every.summary["filter"].mask.tolist(), every.summary.filled("-")["filter"].tolist())
print(
    ImageFileCollection("raw", find_fits_by_reading=True).files[-2:], ImageFileCollection("raw", keywords=[]).files[:1]
)

# Headers and pixels changed by a collection's generators, and saved.
import os
import shutil

import ccdproc
import numpy as np

shutil.copytree("raw", "work")
os.makedirs("edited")
ic = ccdproc.ImageFileCollection("work")
for h in ic.headers(overwrite=True, imagetyp="BIAS"):
    h["IMAGETYP"] = "ZERO"
    h["OBSERVAT"] = ("here", "where it was")
    h.add_comment("edited")
ic.refresh()
print(sorted(set(ic.summary["imagetyp"])), len(ic.files_filtered(imagetyp="zero")))
for header, name in ic.headers(save_location="edited", return_fname=True, imagetyp="dark", exptime=30.0):
    header["FILENAME"] = name
for hdu in ic.hdus(save_with_name="_sub", imagetyp="FLAT", filter="g"):
    hdu.data = (hdu.data - hdu.data.mean()).astype("float32")
    hdu.header["SUBTRACT"] = True
for data, fname in ic.data(return_fname=True, imagetyp="light", filter="r"):
    print(fname, data.dtype, int(data.sum()))
for data in ic.data(imagetyp="LIGHT", save_with_name="_flip", save_location="edited", overwrite=True):
    data[:] = data[::-1]
print(sorted(os.listdir("edited")))
ic.refresh()
print(len(ic.files), [f for f in ic.files if "_sub" in f])
for ccd, fname in ic.ccds(return_fname=True, imagetyp="ZERO", ccd_kwargs={"unit": "adu"}):
    ccd = ccd.multiply(2.0)
    ccd.meta["TWICE"] = True
    ccd.write(os.path.join("edited", "twice_" + fname), overwrite=True)
for hdu, fname in ic.hdus(return_fname=True, imagetyp="ZERO", do_not_scale_image_data=True):
    print(fname, hdu.data.dtype.kind, hdu.header.get("BITPIX"))
    break
for wrong in ({"overwrite": True}, {"clobber": True}):
    try:
        list(ic.ccds(ccd_kwargs={"unit": "adu"}, **wrong))
    except NotImplementedError as error:
        print(type(error).__name__)
try:
    for _h in ic.headers(save_with_name="_sub", imagetyp="FLAT", filter="g", subtract=None):
        pass
except OSError as error:
    print(type(error).__name__)
total = np.zeros_like(next(ic.data(imagetyp="dark")), dtype=float)
for data in ic.data(imagetyp="dark"):
    total += data
print(total.mean())

# Mistaken and outdated arguments, which scripts have without that anybody notices.
import ccdproc
import numpy as np
from astropy.stats import mad_std

names = list(ccdproc.ImageFileCollection("raw").files_filtered(imagetyp="bias", include_path=True))
images = [ccdproc.fits_ccddata_reader(name, unit="adu") for name in names]
master = ccdproc.combine(images, combine="median")
print(np.mean(master.data), master.meta.get("combine"))
master = ccdproc.combine(
    names, method="median", unit="adu", sigma_clip=True, sigma_clip_func=np.ma.median, signma_clip_dev_func=mad_std
)
print(type(master).__name__, master.data.dtype, master.unit)
also = ccdproc.combine(names, "average.fits", "average", unit="adu", add_keyword=False, low_thresh=3, high_thresh=3)
print(float(also.data.mean()))
nothing = ccdproc.combine(
    images, sigma_clip=True, sigma_clip_low_thresh=None, sigma_clip_high_thresh=2.0, dtype="float32"
)
print(nothing.data.dtype, nothing.uncertainty.array.dtype)
text = ccdproc.combine(",".join(names), method="median", unit="adu")
print(np.array_equal(text.data, ccdproc.combine(np.array(names), method="median", unit="adu").data))
for call in (
    lambda: master.write("master.fits", clobber=True),
    lambda: ccdproc.combine(images, method="mean"),
    lambda: ccdproc.combine(None),
    lambda: ccdproc.combine([]),
    lambda: ccdproc.Combiner(images).average_combine(axis=0),
    lambda: ccdproc.subtract_dark(images[0], master),
    lambda: ccdproc.subtract_dark(images[0], master, exposure_time="EXPTIME"),
    lambda: ccdproc.subtract_overscan(images[0], fits_section="1:10"),
    lambda: ccdproc.subtract_overscan(images[0], median=True),
    lambda: ccdproc.subtract_bias(images[0], 3.0),
    lambda: ccdproc.subtract_bias(images[0], ccdproc.CCDData(master.data, unit="electron")),
    lambda: ccdproc.subtract_bias(images[0], master[:, :-4]),
    lambda: ccdproc.flat_correct(images[0], master, norm_value=-1),
    lambda: ccdproc.create_deviation(images[0], gain=1.5, readnoise=5),
    lambda: ccdproc.trim_image(images[0], [1, 2]),
    lambda: ccdproc.cosmicray_median("image"),
    lambda: ccdproc.fits_ccddata_reader(names[0]),
    lambda: ccdproc.gain_correct(images[0], "GAIN"),
    lambda: ccdproc.process_image(images[0]),
    lambda: ccdproc.ImageFileCollection("nowhere"),
    lambda: ccdproc.ImageFileCollection("raw").values("nothing"),
):
    try:
        print(type(call()).__name__)
    except Exception as error:
        print(type(error).__name__)

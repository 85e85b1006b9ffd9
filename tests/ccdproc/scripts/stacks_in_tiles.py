# Stacks that are larger than the memory that is allowed, with weights, scales and written results.
import os

import ccdproc
import numpy as np
from astropy.nddata import CCDData

ic = ccdproc.ImageFileCollection("raw", glob_include="bias*.fits")
names = ic.files_filtered(include_path=True)
size = CCDData.read(names[0], unit="adu").data.size
limit = size * 9 * 6
for method in ("average", "median", "sum"):
    out = ccdproc.combine(
        names, output_file="tiled_%s.fits" % method, method=method, mem_limit=limit, unit="adu", overwrite_output=True
    )
    print(method, out.header["IMAGETYP"], os.path.getsize("tiled_%s.fits" % method))
out = ccdproc.combine(names, method="average", weights=np.array([1, 2, 3, 1, 2, 3]), unit="adu", mem_limit=limit * 2)
out.write("weighted.fits")
out = ccdproc.combine(
    names,
    method="median",
    scale=np.array([1.0, 0.99, 1.01, 1.0, 0.98, 1.02]),
    clip_extrema=True,
    nlow=1,
    nhigh=2,
    minmax_clip=True,
    minmax_clip_min=900,
    minmax_clip_max=1100,
    unit="adu",
    dtype="float32",
)
out.write("clipped.fits")
out = ccdproc.combine(
    names,
    method="average",
    sigma_clip=True,
    sigma_clip_low_thresh=2,
    sigma_clip_high_thresh=2,
    sigma_clip_func=np.median,
    sigma_clip_dev_func=np.std,
    unit="adu",
    mem_limit=limit,
)
out.write("sigma.fits")
out = ccdproc.combine(
    names, sigma_clip=True, sigma_clip_func="median", sigma_clip_dev_func="mad_std", dtype=np.float64, unit="adu"
)
out.write("names.fits")
images = [CCDData.read(name, unit="adu") for name in names]
for i, image in enumerate(images):
    image.mask = np.zeros(image.shape, bool)
    image.mask[i, :] = True
    image.mask[:, 7] = True
out = ccdproc.combine((image for image in images), method="median", clip_extrema=True, nlow=0, nhigh=1)
print(out.mask.sum(), np.isnan(out.data).sum())
out.write("masked.fits")
for image in images:
    image.mask = None
total = ccdproc.combine(images, method="sum", dtype=np.float32)
print(total.data.dtype, total.data.max())

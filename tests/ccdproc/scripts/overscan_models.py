# Overscan fitted by models and subtracted along either axis.
import ccdproc
import numpy as np
from astropy.modeling import models
from astropy.nddata import CCDData

ccd = CCDData.read("raw/flat_r_001.fits", unit="adu")
ny, nx = ccd.shape
sections = {
    "fits": {"fits_section": ccd.header["BIASSEC"]},
    "python": {"overscan": ccd[:, nx - 16 :]},
    "colon": {"fits_section": "[%d:,:]" % (nx - 15)},
}
for name, where in sections.items():
    for model in (None, models.Polynomial1D(1), models.Chebyshev1D(3), models.Legendre1D(2)):
        out = ccdproc.subtract_overscan(ccd, model=model, **where)
        print(name, type(model).__name__, out.data.dtype, round(float(out.data.mean()), 3))
    out.write("overscan_%s.fits" % name)
upright = ccdproc.transform_image(ccd, np.rot90)
top = upright[0:16, :]
out = ccdproc.subtract_overscan(upright, overscan=top, overscan_axis=0, model=models.Chebyshev1D(3))
out.write("upright.fits")
out = ccdproc.subtract_overscan(upright, overscan=top, overscan_axis=None, median=True, add_keyword="OSCAN")
print(out.shape, [key for key in out.header if "SCAN" in key])
first = ccdproc.subtract_overscan(ccd, fits_section="[{}:{}, 1:{}]".format(nx - 15, nx, ny), median=True)
trimmed = ccdproc.trim_image(first, fits_section="[1:{},:]".format(nx - 16))
print(trimmed.shape, ccdproc.trim_image(first[:, : nx - 16]).shape, ccdproc.trim_image(first).shape)
quads = []
half = ny // 2
for j, (a, b) in enumerate(((0, half), (half, ny))):
    part = CCDData(ccd.data[a:b], unit="adu")
    part = ccdproc.subtract_overscan(
        part, fits_section="[%d:%d,1:%d]" % (nx - 15, nx, b - a), overscan_axis=1, model=models.Polynomial1D(2)
    )
    quads.append(ccdproc.trim_image(part, fits_section="[1:%d,1:%d]" % (nx - 16, b - a)))
whole = np.vstack([q.data for q in quads])
CCDData(whole, unit="adu", meta=ccd.meta).write("quads.fits")
processed = ccdproc.ccd_process(
    ccd,
    oscan="[%d:%d,:]" % (nx - 15, nx),
    oscan_model=models.Polynomial1D(1),
    oscan_median=False,
    trim="[1:%d,5:]" % (nx - 16),
)
processed.write("processed.fits")
print(ccdproc.trim_image(ccd, "[:,:40]").shape, ccdproc.trim_image(ccd, "[*,3:-1]").shape if False else "")

# A notebook turned into a script: star imports, lambdas, pictures without pixels, names from modules.
from ccdproc import *  # noqa: F403
import ccdproc
import ccdproc.combiner
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
from ccdproc.combiner import Combiner
from ccdproc.core import _short_names, subtract_overscan
from ccdproc.image_collection import ImageFileCollection as IFC
from ccdproc.utils.slices import slice_from_string

print(ccdproc.__version__.split(".")[:2], hasattr(ccdproc, "Combiner"), len(_short_names) > 5)
print(
    slice_from_string("[1:10, 5:20]", fits_convention=True),
    slice_from_string("[:, 3]"),
    slice_from_string("[-*:2,*]", fits_convention=True),
)
images = IFC("raw")
images.summary.remove_columns(["comment"])
dict_of = {}
for key in ("bias", "dark", "flat"):
    dict_of[key] = [CCDData.read(p, unit=u.adu) for p in images.files_filtered(include_path=True, imagetyp=key)]
to_trim = images.summary["trimsec"][0]
trimmed = {
    k: [trim_image(subtract_overscan(c, fits_section=c.header["BIASSEC"]), to_trim) for c in v]
    for k, v in dict_of.items()
}  # noqa: F405
comb = Combiner(trimmed["bias"])
comb.sigma_clipping(func=np.ma.median)
zero = comb.median_combine()
zero.header = trimmed["bias"][0].header
darks = [subtract_bias(d, zero) for d in trimmed["dark"] if d.header["exptime"] == 120]  # noqa: F405
dark = ccdproc.combiner.combine(darks, method="median", mem_limit=2e9)
per_second = dark.divide(120 * u.second)
flats = [gain_correct(subtract_bias(f, zero), 1.5 * u.electron / u.adu) for f in trimmed["flat"]]  # noqa: F405
flats = [f for f in flats if f.header["filter"] == "g" and 2000 < np.median(f.data) < 40000]
flat = combine(flats, method="median", scale=lambda arr: np.median(flats[0].data) / np.median(arr))  # noqa: F405
print(len(darks), len(flats), per_second.unit, flat.unit)
result = []
for light in images.ccds(imagetyp="light", filter="g", ccd_kwargs={"unit": "adu"}):
    light = trim_image(subtract_overscan(light, fits_section=light.header["BIASSEC"]), to_trim)  # noqa: F405
    nccd = ccd_process(  # noqa: F405
        light,
        master_bias=zero,
        dark_frame=per_second.multiply(120 * u.second),
        master_flat=flat,
        gain=1.5 * u.electron / u.adu,
        readnoise=6 * u.electron,
        dark_exposure=120 * u.s,
        data_exposure=60 * u.s,
        dark_scale=True,
        gain_corrected=False,
    )
    result.append(nccd)
for i, nccd in enumerate(result):
    nccd.write("final%d.fits" % i)
bits = np.array([[0, 1, 2, 4], [8, 3, 12, 16]], dtype=np.uint8)
print(
    bitfield_to_boolean_mask(bits, ignore_bits="1,4").tolist(),
    bitfield_to_boolean_mask(bits, ignore_bits=[8], flip_bits=False).tolist(),
)  # noqa: F405

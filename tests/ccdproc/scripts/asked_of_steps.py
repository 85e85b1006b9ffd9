# Steps, stacks and projections in all their forms, one a line.
import ccdproc, numpy as np, os, glob, shutil, warnings, logging
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty, NDData, Cutout2D
from astropy.stats import mad_std, sigma_clipped_stats, SigmaClip
from astropy.table import Table, vstack
from astropy.wcs import WCS
from astropy.time import Time

warnings.simplefilter("ignore")


def t(name, f):
    try:
        r = f()
    except Exception as e:
        r = (
            "EXC "
            + [
                c.__name__
                for c in type(e).__mro__
                if c.__module__ in ("builtins", "astropy.units.errors", "astropy.units.core")
            ][0]
        )
    print(name, "|", type(r).__name__, "|", r)


def s(c):
    return (
        type(c).__name__,
        c.shape,
        c.data.dtype.str,
        round(float(np.nansum(c.data)), 3),
        None if c.mask is None else (type(c.mask).__name__, int(np.sum(c.mask))),
        None
        if c.uncertainty is None
        else (
            type(c.uncertainty).__name__,
            c.uncertainty.array.dtype.str,
            round(float(np.nansum(c.uncertainty.array)), 4),
            str(c.uncertainty.unit),
        ),
        str(c.unit),
        sorted(c.meta)[-6:],
        c.wcs is not None,
    )


R = lambda n, **k: CCDData.read("raw/" + n, unit="adu", **k)


def hd(p):
    return [
        (h.name, dict((k, str(v)) for k, v in h.header.items() if k not in ("DATE", "CHECKSUM"))) for h in fits.open(p)
    ]


# masks
a = R("ngc3521_g_001.fits")
sat = a.data > 5000
a.mask = sat
t("mask or", lambda: s(ccdproc.subtract_bias(a, R("bias_001.fits"))))
t("trim mask", lambda: s(ccdproc.trim_image(a, a.header["TRIMSEC"])))
t("slice", lambda: s(a[10:20, ::2]))


def inplace():
    b = R("bias_001.fits")
    c = R("ngc3521_g_001.fits")
    x = c.data.copy()
    r = ccdproc.subtract_bias(c, b)
    r.data += 5
    r.header["X"] = 1
    r2 = ccdproc.trim_image(c, "[1:50,1:50]")
    r2.data[:] = 0
    r3 = ccdproc.gain_correct(c, 1.0 * u.electron / u.adu)
    r3.data[:] = 0
    r4 = ccdproc.trim_image(c)
    r4.data[:] = 0
    r5 = ccdproc.cosmicray_median(c, error_image=np.full(c.shape, 9.0))
    r5.data[:] = 0
    r6 = ccdproc.create_deviation(c, readnoise=3 * u.adu)
    r6.data[:] = 0
    r7 = ccdproc.subtract_overscan(c, fits_section="[97:112,:]")
    r7.data[:] = 0
    r8 = ccdproc.ccd_process(c)
    r8.data[:] = 0
    r9 = ccdproc.transform_image(c, np.flipud)
    return (
        np.array_equal(c.data, x),
        "X" in c.header,
        [k for k in c.header if k.isupper() and k.startswith(("SUB", "TRIM"))],
        r9.wcs is c.wcs,
        r.wcs is c.wcs,
        r2.header is c.header,
    )


t("inplace", inplace)
t(
    "readonly",
    lambda: (lambda c: (c.data.setflags(write=False), s(ccdproc.subtract_overscan(c, fits_section="[97:112,:]")))[1])(
        R("bias_001.fits")
    ),
)
t(
    "mmap",
    lambda: s(
        ccdproc.subtract_bias(
            CCDData(fits.open("badpix.fits", memmap=True)[0].data, unit="adu"), CCDData(np.ones((96, 96)), unit="adu")
        )
    ),
)
t(
    "be",
    lambda: s(
        ccdproc.flat_correct(
            CCDData(np.arange(1.0, 101).reshape(10, 10).astype(">f4"), unit="adu"),
            CCDData(np.arange(1.0, 101).reshape(10, 10).astype(">f8"), unit="adu"),
        )
    ),
)
t("i2 bias", lambda: s(ccdproc.subtract_bias(R("ngc3521_g_001.fits"), R("bias_001.fits"))))
t(
    "i2 dark",
    lambda: s(
        ccdproc.subtract_dark(
            R("ngc3521_g_001.fits"), R("dark_001.fits"), exposure_time="EXPTIME", exposure_unit=u.s, scale=True
        )
    ),
)
t("i2 flat", lambda: s(ccdproc.flat_correct(R("ngc3521_g_001.fits"), R("flat_g_001.fits"))))
t("f2", lambda: s(ccdproc.gain_correct(CCDData(np.ones((3, 3), "f2"), unit="adu"), 2.0)))
# units
t("u1", lambda: s(ccdproc.gain_correct(a, u.Quantity(1.5, u.electron / u.adu)).divide(60 * u.s)))
t(
    "u2",
    lambda: str(
        ccdproc.gain_correct(ccdproc.gain_correct(a, 2 * u.electron / u.adu), 0.5 * u.photon / u.electron).unit
    ),
)
t("u3", lambda: s(ccdproc.subtract_bias(CCDData([[5.0]], unit="km"), CCDData([[500.0]], unit="m"))))
t("u4", lambda: s(ccdproc.subtract_bias(CCDData([[5.0]], unit=""), CCDData([[500.0]], unit="adu"))))


# write/read
def w(c, **k):
    c.write("o.fits", overwrite=True, **k)
    return hd("o.fits")


red = ccdproc.ccd_process(
    R("ngc3521_g_001.fits"),
    oscan="[97:112,1:96]",
    trim="[1:96,1:96]",
    error=True,
    gain=1.5 * u.electron / u.adu,
    readnoise=6 * u.electron,
    bad_pixel_mask=np.zeros((96, 96), bool),
)
t("w", lambda: w(red))
t("w2", lambda: w(ccdproc.wcs_project(red.copy(), R("ngc3521_g_002.fits").wcs)))
t("w3", lambda: w(ccdproc.combine(["raw/ngc3521_g_001.fits", "raw/ngc3521_g_002.fits"], unit="adu")))
t("w4", lambda: w(ccdproc.Combiner([red, red]).median_combine()))
t("w5", lambda: w(ccdproc.combine([red, red.multiply(1.1)], method="median", dtype="float32")))
t("w7", lambda: w(ccdproc.flat_correct(red, red)))
t("w8", lambda: w(ccdproc.block_reduce(red, 2)))
t("w9", lambda: w(ccdproc.median_filter(red, 3)))
back = CCDData.read("o.fits")
t("back", lambda: s(back))
t("asdict", lambda: s(ccdproc.subtract_bias(CCDData(red.data, unit=red.unit, meta={"a": "b"}), red)))
t(
    "longkw",
    lambda: dict(
        ccdproc.trim_image(
            CCDData(np.ones((4, 4)), unit="adu", meta=fits.Header({"A": 1})),
            fits_section="[1:2,1:2]",
            add_keyword={"averylongkeyword": "x", "b": 2},
        ).header
    ),
)
t(
    "logs",
    lambda: [
        str(c)
        for c in ccdproc.flat_correct(
            ccdproc.subtract_dark(
                ccdproc.subtract_bias(R("ngc3521_g_001.fits"), R("bias_001.fits")),
                R("dark_001.fits"),
                dark_exposure=30 * u.s,
                data_exposure=60 * u.s,
                scale=True,
            ),
            R("flat_g_001.fits"),
            norm_value=20000.0,
            min_value=0.1,
        ).header.cards
        if "SUB" in str(c) or "FLAT" in str(c)
    ],
)
t("proc log", lambda: [str(c) for c in red.header.cards[-6:]])
t(
    "model log",
    lambda: ccdproc.subtract_overscan(
        R("bias_001.fits"),
        fits_section="[97:112,:]",
        model=__import__("astropy.modeling", fromlist=["models"]).models.Polynomial1D(1),
    ).header["SUBOSCAN"],
)
t(
    "hist",
    lambda: (lambda c: (c.header.add_history("x"), ccdproc.trim_image(c, "[1:9,1:9]").header["HISTORY"])[1])(
        R("bias_001.fits")
    ),
)
t("meta list", lambda: s(ccdproc.gain_correct(CCDData(np.ones((2, 2)), unit="adu", meta={"x": [1, 2]}), 2.0)))
# stats after
t("scs", lambda: [round(float(x), 4) for x in sigma_clipped_stats(red.data, mask=red.mask)])
t("ma", lambda: round(float(np.ma.median(np.ma.array(red.data, mask=red.mask))), 4))
t("np", lambda: np.asarray(red).dtype)
t("mean", lambda: (red.mean().unit,))
t("arith", lambda: s(red.add(red).divide(2.0)))
# combine of cleaned w/ scaling etc.
names = ["raw/flat_g_%03d.fits" % i for i in range(1, 5)]
for m in ("average", "median", "sum"):
    for kw in (
        {},
        dict(scale=lambda x: 1 / np.median(x)),
        dict(scale=lambda x: np.mean(x) / 1e4, sigma_clip=True),
        dict(
            sigma_clip=True,
            sigma_clip_low_thresh=1,
            sigma_clip_high_thresh=1,
            sigma_clip_func=np.ma.median,
            sigma_clip_dev_func=mad_std,
        ),
        dict(clip_extrema=True),
        dict(clip_extrema=True, nlow=2, nhigh=1),
        dict(minmax_clip=True, minmax_clip_min=12000),
        dict(weights=np.array([1, 2, 3, 4.0]), minmax_clip=True, minmax_clip_max=9000),
        dict(mem_limit=3e5, sigma_clip=True),
        dict(dtype=np.float32),
        dict(dtype="f4", scale=lambda x: 1 / np.mean(x)),
        dict(combine_uncertainty_function=mad_std),
        dict(
            combine_uncertainty_function=lambda x, axis=0: np.nanmax(x, axis=axis) - np.nanmin(x, axis=axis),
            clip_extrema=True,
        ),
    ):
        t("c %s %s" % (m, sorted(kw)), lambda: s(ccdproc.combine(names, method=m, unit="adu", **kw)))
rp = [
    ccdproc.wcs_project(R("ngc3521_r_00%d.fits" % k)[:, :96], R("ngc3521_r_002.fits")[:, :96].wcs, order=o)
    for k in (1, 2, 3)
    for o in ("bilinear", "bicubic")
]
for kw in (
    {},
    dict(sigma_clip=True),
    dict(sigma_clip=True, sigma_clip_func=np.ma.median),
    dict(sigma_clip=True, sigma_clip_func="median"),
    dict(clip_extrema=True),
    dict(minmax_clip=True, minmax_clip_max=4000),
):
    for m in ("average", "median"):
        t("rp %s %s" % (m, kw), lambda: s(ccdproc.combine(rp, method=m, **kw)))
t("wp", lambda: s(rp[1]))
t("wp3", lambda: s(ccdproc.wcs_project(red.copy(), R("ngc3521_g_003.fits").wcs, target_shape=(50, 200))))
t("wp4", lambda: ccdproc.wcs_project(CCDData(np.ones((3, 3)), unit="adu"), red.wcs))
t("wp5", lambda: ccdproc.wcs_project(red, WCS(naxis=2)))
t("wp6", lambda: s(ccdproc.wcs_project(red.copy(), red.wcs, order="nearest")))
t("wp7", lambda: s(ccdproc.wcs_project(red.copy(), red.wcs, order=0)))
t(
    "wp8",
    lambda: s(
        ccdproc.wcs_project(
            red.copy(),
            WCS(
                fits.Header(
                    {
                        "CTYPE1": "GLON-CAR",
                        "CTYPE2": "GLAT-CAR",
                        "CRVAL1": 236.0,
                        "CRVAL2": 42.0,
                        "CDELT1": -1e-3,
                        "CDELT2": 1e-3,
                        "CRPIX1": 10,
                        "CRPIX2": 10,
                    }
                )
            ),
        )
    ),
)
f = red.copy()
f.data = f.data.astype("f4")
t("wp9", lambda: s(ccdproc.wcs_project(f, R("ngc3521_g_003.fits").wcs)))
from reproject import reproject_interp
from reproject.mosaicking import find_optimal_celestial_wcs

w, sh = find_optimal_celestial_wcs([(r.data, r.wcs) for r in rp[::2]])
t("opt", lambda: s(ccdproc.wcs_project(rp[0].copy(), w, target_shape=sh)))

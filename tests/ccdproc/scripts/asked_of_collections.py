# Everything that a collection can be asked, one question a line.
import ccdproc, numpy as np, os, glob, sys, shutil, warnings, pickle, copy
from pathlib import Path
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

warnings.simplefilter("ignore")


def t(name, f):
    try:
        r = f()
    except Exception as e:
        r = "EXC " + [c.__name__ for c in type(e).__mro__ if c.__module__ in ("builtins",)][0]
    print(name, "|", type(r).__name__, "|", r)


I = ccdproc.ImageFileCollection
ic = I("raw")
t("repr", lambda: repr(ic))
t("str", lambda: str(I("raw", keywords=["exptime", "filter"], glob_include="b*")))
t("len", lambda: len(ic.files))
t("bool", lambda: bool(ic.summary))
t("kw", lambda: ic.keywords[:5])
t("vals", lambda: ic.values("imagetyp", unique=True) and sorted(ic.values("imagetyp", unique=True)))
t("vals2", lambda: ic.values("nokey"))
t("vals3", lambda: ic.values("IMAGETYP"))
t("filt no", lambda: ic.filter(imagetyp="nothing").files)
t("filt nokey", lambda: ic.filter(nokey="x").files)
t("filt sum", lambda: ic.filter(imagetyp="bias").summary["file"].tolist())
t("filtfilt", lambda: [os.path.basename(f) for f in ic.filter(imagetyp="flat").filter(filter="g").files])
t("filt loc", lambda: ic.filter(imagetyp="bias").location)
t("filt kw", lambda: I("raw", keywords=["imagetyp"]).filter(imagetyp="bias").keywords)
t("filt ff", lambda: ic.filter(imagetyp="bias").files_filtered(include_path=True))
t("filtered unknown kw", lambda: I("raw", keywords=["imagetyp"]).files_filtered(imagetyp="flat", FILTER="g").tolist())
t("case", lambda: ic.files_filtered(IMAGETYP="FLAT", Filter="G").tolist())
t("dateobs", lambda: ic.files_filtered(**{"date-obs": "2026-04-21T02:03:00.0"}).tolist())
t("int exp", lambda: ic.files_filtered(exptime=30).tolist())
t("str exp", lambda: ic.files_filtered(exptime="30.0").tolist())
t("regex num", lambda: ic.files_filtered(regex_match=True, exptime="3").tolist())
t("include regex", lambda: ic.files_filtered(regex_match=True, include_path=True, file=".*_g_00[12]"))
t("file", lambda: ic.files_filtered(file="bias_001.fits").tolist())
t("none loc", lambda: I().files)
t("empty", lambda: (os.makedirs("e", exist_ok=True), I("e").summary)[1])
t("empty ff", lambda: I("e").files_filtered(imagetyp="x"))
t("empty loop", lambda: list(I("e").hdus()))
t("empty ccds", lambda: list(I("e").ccds(imagetyp="x")))
t("empty values", lambda: I("e").values("a"))
t("empty sort", lambda: I("e").sort("a"))
t("empty kw", lambda: I("e").keywords)
t("empty files", lambda: I("e").files)
t("nofolder", lambda: I("nofolder"))
t("filename miss", lambda: I(filenames=["nofile.fits"]).summary)
t("names", lambda: I("raw", filenames=["bias_001.fits"]).summary["file"].tolist())
t("names str", lambda: I(filenames="raw/bias_001.fits").files)
t("names path", lambda: list(I(filenames=[Path("raw/bias_001.fits")]).summary["file"]))
t("kw star", lambda: I("raw", keywords=["*", "x"]).keywords[-1])
t("kw case", lambda: I("raw", keywords=["ImageTyp", "EXPTIME"]).summary.colnames)
t("kw missing", lambda: I("raw", keywords=["nokey"]).summary["nokey"].mask.all())
t("sort", lambda: (ic.sort("exptime"), ic.files[:8])[1])
t("sort bad", lambda: ic.sort("nokey"))
t("sort none", lambda: ic.sort(None))
t("sort rev", lambda: ic.sort(["filter", "exptime", "file"]))
t("ext", lambda: I(".", glob_include="mosaic*", ext=1).summary["extname"].tolist())
t("ext name", lambda: I(".", glob_include="mosaic*", ext="CHIP2").summary["gain"].tolist())
t(
    "ext ccds",
    lambda: [c.data.mean().round(3) for c in I(".", glob_include="mosaic*", ext=2).ccds(ccd_kwargs={"unit": "adu"})],
)
t("ext miss", lambda: I(".", glob_include="mosaic*", ext=7).summary)
t("ccds nounit", lambda: list(ic.ccds(imagetyp="bias")))
# ccdproc leaves files masked in the summary of a collection whose loop failed
ic = I("raw")
t("ccds hdu", lambda: [c.header["EXTNAME"] for c in I(".", glob_include="mosaic*").ccds(ccd_kwargs={"unit": "adu"})])
t("next", lambda: list(ic.data(imagetyp="bias"))[0].sum())
t("next hdr", lambda: list(ic.headers())[0]["SIMPLE"])
t("return_fname", lambda: list(ic.headers(return_fname=True))[0][1])
t("header type", lambda: [type(h).__name__ for h in ic.headers(imagetyp="dark")][:1])
t("hdu type", lambda: [type(h).__name__ for h in ic.hdus(imagetyp="dark")][:1])
t("data dtype", lambda: [d.dtype.str for d in ic.data(imagetyp="dark")][:1])
t("data noscale", lambda: [d.dtype.str for d in ic.data(imagetyp="dark", do_not_scale_image_data=True)][:1])
t("scale back", lambda: list(ic.hdus(scale_back=True)))
ic = I("raw")
t("gz", lambda: I(".", keywords="*").files)
t("gz sum", lambda: [str(x) for x in I(".").summary["file"]])
t("summary idx", lambda: ic.summary[0]["file"])
t("summary where", lambda: ic.summary["file"][ic.summary["exptime"] > 60].tolist())
t("summary len", lambda: len(ic.summary))
t("pandas", lambda: ic.summary.to_pandas().shape)
t("unique", lambda: sorted(set(ic.summary["filter"])))
t("as str", lambda: str(ic.summary["file", "exptime"][:3]))
t("copy", lambda: copy.deepcopy(ic).files[:1])
t("pickle", lambda: pickle.loads(pickle.dumps(ic)).files[:1])
t("isin", lambda: ic.summary["file"][np.isin(ic.summary["imagetyp"], ["BIAS"])].tolist())


def addcol():
    ic.summary["mine"] = np.arange(len(ic.summary))
    return ic.files_filtered(mine=3).tolist()


t("addcol", addcol)
t("addcol kw", lambda: ic.keywords[-1])
t("refresh", lambda: (ic.refresh(), "mine" in ic.keywords)[1])


def rm():
    i = I("raw")
    i.summary.remove_rows([0, 1])
    return len(i.files), len(i.files_filtered()), i.files_filtered(imagetyp="bias").tolist()


t("rmrows", rm)


def setkw():
    i = I("raw")
    i.keywords = ["imagetyp"]
    a = list(i.summary.colnames)
    i.keywords = ["exptime", "naxis"]
    b = list(i.summary.colnames)
    i.keywords = "*"
    return a, b, len(i.summary.colnames)


t("setkw", setkw)
t("loc", lambda: I(Path("raw")).location)
t("loc slash", lambda: I("raw/").files_filtered(include_path=True, imagetyp="bias")[0])
t("abs", lambda: I(os.path.abspath("raw")).files[0])


def newf():
    i = I("raw")
    fits.writeto("raw/zz.fits", np.zeros((3, 3)), overwrite=True)
    a = len(i.files)
    i.refresh()
    b = len(i.files)
    os.remove("raw/zz.fits")
    i.refresh()
    return a, b, len(i.files)


t("new", newf)


def nested():
    i = I("raw")
    out = []
    for c in i.ccds(imagetyp="dark", ccd_kwargs={"unit": "adu"}):
        for h in i.headers(imagetyp="bias"):
            out.append((c.header["EXPTIME"], h["EXPTIME"]))
    return len(out)


t("nested", nested)


def brk():
    i = I("raw")
    for h in i.headers(imagetyp="dark"):
        break
    return len(i.files_filtered(imagetyp="bias"))


t("brk", brk)


def edit():
    i = I("raw")
    for h, f in i.headers(imagetyp="dark", overwrite=True, return_fname=True):
        h["NEW"] = f
        h["EXPTIME"] = h["EXPTIME"] * 2
    return (
        [fits.getval("raw/" + f, "NEW") for f in i.files_filtered(imagetyp="dark")],
        fits.getdata("raw/dark_001.fits").dtype.str,
        fits.getval("raw/dark_001.fits", "BZERO"),
    )


t("edit", edit)


def edith():
    i = I("raw")
    for h in i.hdus(imagetyp="dark", save_location="e", overwrite=True):
        h.data = h.data.astype("f4") - 1
        h.header["A"] = 1
    return (
        sorted(os.listdir("e")),
        fits.getdata("e/dark_001.fits").dtype.str,
        fits.getdata("e/dark_001.fits").mean(),
        list(fits.getheader("e/dark_001.fits"))[:8],
    )


t("edith", edith)


def editd():
    i = I("raw")
    for d in i.data(imagetyp="dark", save_with_name="_x"):
        d += 1
    return fits.getdata("raw/dark_001_x.fits").mean() - fits.getdata("raw/dark_001.fits").mean(), fits.getdata(
        "raw/dark_001_x.fits"
    ).dtype.str


t("editd", editd)
names = sorted(glob.glob("raw/bias*.fits"))
t("c1", lambda: ccdproc.combine(names, unit="adu").data.mean().round(6))
t("c2", lambda: ccdproc.combine(names).data)
t("c4", lambda: ccdproc.combine(",".join(names), unit=u.adu, method="median").header["IMAGETYP"])
t("c5", lambda: ccdproc.combine([Path(n) for n in names], unit="adu").shape)
t(
    "c6",
    lambda: ccdproc.combine(I("raw").files_filtered(imagetyp="bias", include_path=True), "out.fits", unit="adu").shape,
)
t("c7", lambda: ccdproc.combine(names, "out.fits", unit="adu"))
t("c8", lambda: ccdproc.combine(names, "out.fits", unit="adu", overwrite_output=True).shape)
t("c9", lambda: [h.name for h in fits.open("out.fits")])
t("c10", lambda: ccdproc.combine(names, Path("out2.fits"), unit="adu", method="sum") is None)
t("c11", lambda: ccdproc.combine(["mosaic_1.fits", "mosaic_2.fits"], unit="adu", hdu=2).header["EXTNAME"])
t("c13", lambda: ccdproc.combine(np.array(names), unit="adu", scale=np.mean).data.mean().round(3))
t("c14", lambda: ccdproc.combine((n for n in names), unit="adu").shape)
t("c15", lambda: ccdproc.combine(names, unit="adu", memmap=False).shape)
t("c16", lambda: ccdproc.combine(names, unit="adu", badkw=1))
t("c17", lambda: ccdproc.combine("raw/bias*.fits", unit="adu"))
t("c18", lambda: ccdproc.combine(names, unit="adu", hdu_mask=None).mask.sum())
t("c19", lambda: ccdproc.combine(ic.summary["file"][:2], unit="adu"))
os.chdir("raw")
t("c20", lambda: ccdproc.combine(I(".").files_filtered(imagetyp="bias"), unit="adu").shape)
t("c21", lambda: ccdproc.combine(I(".").summary["file"][:3], unit="adu").shape)

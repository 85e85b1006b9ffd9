"""Multi-extension files as trees: names, headers, planes, what is kept, and what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

import lazyccd
from lazyccd.errors import FormatError, ParameterError
from lazyccd.frame.tree import frames_of
from lazyccd.testing.asserts import raise_if_computes
from lazyccd.testing.steps import READS

Cards = dict[str, Any]


def image(
    name: str = "", ver: int | None = None, value: float = 1, shape: tuple[int, ...] = (4, 5), **cards: Any
) -> Any:
    """Return an image extension of one value."""
    header = fits.Header(cards)
    hdu = fits.ImageHDU(np.full(shape, value, np.float32), header, name=name or None)
    if ver is not None:
        hdu.ver = ver
    return hdu


def write(path: Path, *hdus: Any, **cards: Any) -> Path:
    """Write extensions behind a primary HDU without data."""
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(cards)), *hdus]).writeto(path, output_verify="ignore")
    return path


@pytest.mark.parametrize(
    ("extensions", "names"),
    [
        ([("A", 1), ("B", 1)], ["A", "B"]),
        ([("SCI", 1), ("SCI", 2), ("REF", 1)], ["SCI_1", "SCI_2", "REF"]),
        ([("", None), ("im1", None), ("", None)], ["EXT1", "IM1", "EXT3"]),
        ([("SCI", 1), ("SCI", 1)], ["SCI_1", "SCI_EXT2"]),
        ([("R22/S11", 1), ("..", 1), ("a b", 1)], ["R22_S11", "EXT2", "A B"]),
        ([(" ".join(["detector"] * 9), 1)], [" ".join(["DETECTOR"] * 9)]),  # goes on in a CONTINUE card
    ],
)
def test_names(tmp_path: Path, extensions: list[Any], names: list[str]) -> None:
    """Frames have the names of their extensions, made unique and fit for groups, in the order of the file."""
    tree = lazyccd.open_mef(write(tmp_path / "a.fits", *(image(*pair, value=i) for i, pair in enumerate(extensions))))
    assert list(tree.children) == names
    assert [float(tree[name]["data"].max()) for name in names] == list(range(len(names)))


@pytest.mark.parametrize("whole", [True, False, None])
def test_headers(tmp_path: Path, whole: bool | None) -> None:
    """Scalars come from the root if the extension lacks them; sections, WCS and GAIN only with INHERIT = T."""
    primary = {"FILTER": "r", "EXPTIME": 30.0, "GAIN": 0.0, "DATASEC": "[1:99,1:99]", "CRPIX1": 7.0, "RDNOISE": 9.0}
    cards: Cards = {"EXPTIME": 20.0} if whole is None else {"INHERIT": whole, "EXPTIME": 20.0}
    tree = lazyccd.open_mef(write(tmp_path / "a.fits", image("A", **cards), **primary))
    header = tree["A"].to_dataset().ccd.header
    assert (header["FILTER"], header["EXPTIME"], header["RDNOISE"]) == ("r", 20.0, 9.0)
    for keyword in ("GAIN", "DATASEC", "CRPIX1"):
        assert (keyword in header) == (whole is True)
    assert header["NAXIS1"] == 5
    assert tree.ccd.header["GAIN"] == 0.0
    assert tree.ccd.header["EXPTIME"] == 30.0


def planes(tree: xr.DataTree) -> dict[str, set[str]]:
    """Return which variables each frame has."""
    return {name: set(map(str, ds.data_vars)) for name, ds in frames_of(tree).items()}


FULL = {"data", "uncertainty", "mask"}
BARE = {"data", "mask"}  # floats always have a mask, for what is not finite


@pytest.mark.parametrize(
    ("hdus", "roles", "expected"),
    [
        # HST: by version, whatever the order
        (
            [("SCI", 1), ("SCI", 2), ("ERR", 2), ("ERR", 1), ("DQ", 1), ("SAMP", 1)],
            {},
            {"SCI_1": FULL, "SCI_2": FULL},
        ),
        # LSST, and detectors one after the other
        ([("IMAGE", 1), ("MASK", 1), ("VARIANCE", 1)], {}, {"IMAGE": FULL}),
        ([("N1", 1), ("UNCERT", 1), ("N2", 1), ("UNCERT", 2), ("DQ", 2)], {}, {"N1": FULL, "N2": FULL}),
        # what other names mean must be said
        ([("A", 1), ("WHT", 1)], {}, {"A": BARE}),
        ([("A", 1), ("WHT", 1)], {"wht": "ivar"}, {"A": FULL}),
        ([("A", 1), ("SKY", 1), ("FLAGS", 1)], {"SKY": "kept", "FLAGS": "mask"}, {"A": BARE}),
        ([("A", 1), ("ERR", 1)], {"ERR": "image"}, {"A": BARE, "ERR": BARE}),
    ],
)
def test_planes(tmp_path: Path, hdus: list[Any], roles: dict[str, Any], expected: Any) -> None:
    """Uncertainty and mask go to their image, and nothing else does."""
    made = []
    for i, (name, ver) in enumerate(hdus):
        hdu = image(name, ver, value=i + 1)
        hdu.data = hdu.data.astype(np.int16) if name in {"DQ", "MASK", "FLAGS"} else hdu.data
        made.append(hdu)
    tree = lazyccd.open_mef(write(tmp_path / "a.fits", *made), roles=roles, dq="boolean")
    assert planes(tree) == expected
    for name, ds in frames_of(tree).items():
        if "uncertainty" in ds:
            number = next(
                i + 1
                for i, (n, ver) in enumerate(hdus)
                if n in {"ERR", "UNCERT", "VARIANCE", "WHT"} and (name[-1] == str(ver) or len(expected) == 1)
            )
            np.testing.assert_allclose(ds["uncertainty"].values, number, rtol=1e-6)


def test_a_plane_of_another_shape_is_kept(tmp_path: Path) -> None:
    """It cannot be a plane of the image, and is not lost."""
    tree = lazyccd.open_mef(write(tmp_path / "a.fits", image("A"), image("ERR", shape=(2, 2))))
    assert planes(tree) == {"A": BARE}
    assert tree.attrs["hdus"][2]["name"] == "ERR"


def test_only_headers_are_read(tmp_path: Path) -> None:
    """Opening computes nothing and reads no pixel; what is no frame is known by its place."""
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.arange(3.0))], name="CAT")
    path = write(tmp_path / "a.fits", image("A"), table, image("LINE", shape=(7,)), image("CUBE", shape=(2, 3, 4)))
    READS.clear()
    with raise_if_computes():
        tree = lazyccd.open_mef(path)
    kept = {hdu["name"]: hdu["bytes"] for hdu in tree.attrs["hdus"] if "bytes" in hdu}
    assert list(kept) == ["CAT", "LINE", "CUBE"]
    raw = path.read_bytes()
    assert raw[kept["CAT"]["offset"] :].startswith(b"XTENSION= 'BINTABLE'")
    assert kept["CAT"]["size"] == 2880 * (raw[kept["CAT"]["offset"] :].index(b"END   ") // 2880 + 1) + 12


def test_cubes_of_one_plane(tmp_path: Path) -> None:
    """They are frames, which remember the axis."""
    tree = lazyccd.open_mef(write(tmp_path / "a.fits", image("A", shape=(1, 4, 5)), image("B", shape=(4, 1, 5))))
    assert [tree[name]["data"].shape for name in "AB"] == [(4, 5), (4, 5)]
    assert [tree[name].attrs["squeezed"] for name in "AB"] == [[3], [2]]


def damaged(path: Path, how: str) -> Path:
    """Write a file of three extensions and damage the second, or cut the third."""
    packed = fits.CompImageHDU(np.arange(900, dtype=np.int16).reshape(30, 30), name="B", compression_type="RICE_1")
    write(path, image("A"), packed, image("C", shape=(60, 60)))
    raw = path.read_bytes()
    if how == "cut":
        path.write_bytes(raw[:-5760])
    else:
        path.write_bytes(raw.replace(b"ZCMPTYPE= 'RICE_1  '", b"ZCMPTYPE= 'MAGIC_1 '"))
    return path


@pytest.mark.parametrize(
    ("how", "left", "message"), [("cut", ["A", "B"], "truncated"), ("type", ["A", "C"], "MAGIC_1")]
)
def test_damaged_extensions(tmp_path: Path, how: str, left: list[str], message: str) -> None:
    """One is reported, by an error or by a warning and the rest of the exposure."""
    path = damaged(tmp_path / "a.fits", how)
    with pytest.raises(FormatError, match=message):
        lazyccd.open_mef(path)
    with pytest.warns(UserWarning, match=f"left out: .*{message}"):
        tree = lazyccd.open_mef(path, on_error="skip")
    assert list(tree.children) == left
    assert message in tree.attrs["skipped"][0]
    assert float(tree["A"]["data"].max()) == 1


def test_what_is_left_keeps_its_name(tmp_path: Path) -> None:
    """The header of an image that is cut is still read, so the others are named, and matched by name, as in a whole file."""
    path = write(tmp_path / "a.fits", image("SCI"), image("SCI", ver=2, shape=(60, 60)))
    whole = lazyccd.open_mef(path)
    cut = tmp_path / "b.fits"
    cut.write_bytes(path.read_bytes()[:-5760])
    with pytest.warns(UserWarning, match=r"left out: .*b\.fits\[2\] is truncated"):
        tree = lazyccd.open_mef(cut, on_error="skip")
    assert list(tree.children) == ["SCI_1"]
    assert len(tree.attrs["skipped"]) == 1
    assert not lazyccd.subtract_bias(tree, whole)["SCI_1"]["data"].values.any()


@pytest.mark.parametrize("algorithm", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("name", ["B", "DQ"])
def test_damaged_tiles(tmp_path: Path, algorithm: str, name: str) -> None:
    """Headers do not tell: computing names file, extension and tile; "skip" looks at all tiles and leaves the frame out."""
    rng = np.random.default_rng(1)
    packed = [
        fits.CompImageHDU(
            rng.integers(0, 9, (40, 30), np.int16), name=n, compression_type=algorithm, tile_shape=(8, 30)
        )
        for n in ("B", "DQ")
    ]
    path = write(tmp_path / "a.fits", image("A"), *packed)
    tree = lazyccd.open_mef(path, dq="boolean", on_error="skip")
    assert list(tree.children) == ["A", "B"]
    assert "skipped" not in tree.attrs
    with fits.open(path, disable_image_compression=True) as hdus:
        start, header = hdus[name]._data_offset, hdus[name].header
    raw = bytearray(path.read_bytes())
    length, place = np.frombuffer(raw, ">i4", 2, start + 2 * header["NAXIS1"]).tolist()
    start += header["NAXIS1"] * header["NAXIS2"]
    raw[start + place : start + place + length] = b"\xff" * length
    path.write_bytes(raw)
    message = rf"a\.fits\[{name},1\]: tile 2 cannot be decompressed \({algorithm}\)"
    tree = lazyccd.open_mef(path, dq="boolean")
    with pytest.raises(FormatError, match=message):
        lazyccd.to_fits(tree, tmp_path / "b.fits")
    assert not (tmp_path / "b.fits").exists()
    with pytest.warns(UserWarning, match=f"left out: .*{message}"):
        tree = lazyccd.open_mef(path, dq="boolean", on_error="skip")
    assert list(tree.children) == ["A"]
    with fits.open(str(lazyccd.to_fits(tree, tmp_path / "c.fits"))) as hdus:
        assert [(hdu.name, hdu.shape) for hdu in hdus[1:]] == [("A", hdus["A"].shape), ("DQ", hdus["A"].shape)]


def test_what_is_refused(tmp_path: Path) -> None:
    """Arguments that mean nothing, and a name that picks one extension."""
    path = write(tmp_path / "a.fits", image("A"))
    with pytest.raises(ParameterError, match=r"roles A: 'flux' must be one of image, std"):
        lazyccd.open_mef(path, roles={"A": "flux"})  # type: ignore[dict-item]
    with pytest.raises(ParameterError, match="on_error 'ignore' must be 'raise' or 'skip'"):
        lazyccd.open_mef(path, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"names extension 'A', and open_mef\(\) opens all"):
        lazyccd.open_mef(f"{path}[A]")


REAL = {
    "lco_sinistro_mef/mef_raw_test_frame.fits": (4, 0),
    "lco_sinistro_mef/banzai_test_frame.fits.fz": (1, 1),
    "lsst_16amp/e2v_spot.fits.gz": (16, 1),
    "lsst_16amp/30211212000310-R22-S22-det098.fits": (16, 2),
    "lsst_16amp/MC_C_20230616_000013_R04_SG0.fits": (92, 0),
    "decam_cp_tpv_dq/c4d_130105_065255_ooi_r_a1-N15.fits.fz": (1, 0),
    "dq_bitmask/HST_NICMOS.fits": (1, 2),
    "dq_bitmask/3c120_stis_orig.fits.gz": (1, 0),
    "dq_bitmask/frame-r-001000-1-0100.fits.bz2": (1, 3),
    "dq_bitmask/fpM-001000-r1-0100.fit": (0, 11),
    "dq_bitmask/HST_WFPC_II.fits": (0, 2),
    "cosmic_rays/gmos.fits": (2, 0),
    "ccdproc/flat-mef.fits": (3, 0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data: Path, name: str) -> None:
    """Each frame has the pixels and the cards of its extension, and each other HDU is kept."""
    count, kept = REAL[name]
    tree = lazyccd.open_mef(shared_data / name)
    hdus = tree.attrs["hdus"]
    assert len(tree.children) == count
    assert sum("bytes" in hdu for hdu in hdus) == kept
    with fits.open(shared_data / name) as file:
        assert len(file) == len(hdus)
        for i, (hdu, found) in enumerate(zip(file, hdus, strict=True)):
            if found.get("plane") != "data" or (count > 16 and i % 30):
                continue
            ds = tree[found["frame"]].to_dataset()
            np.testing.assert_allclose(ds["data"].values, np.squeeze(hdu.data), rtol=1e-6)
            header = ds.ccd.header
            for card in hdu.header.cards[8:]:
                if card.keyword and card.keyword not in {"COMMENT", "HISTORY", "EXTNAME"}:
                    assert header[card.keyword] == card.value or card.value != card.value


def test_files_beside_each_other(shared_data: Path) -> None:
    """The weight and data quality files of a NOIRLab pipeline are the planes of its image file."""
    name = "decam_cp_tpv_dq/c4d_170316_062107_{}_z_ls9.N2.fits"
    tree = lazyccd.open_mef(shared_data / name.format("ooi"))
    ds = next(iter(frames_of(tree).values()))
    assert ds["uncertainty"].attrs["uncertainty_type"] == "ivar"
    weights = fits.getdata(shared_data / name.format("oow"), 1)
    np.testing.assert_allclose(ds["uncertainty"].values[weights > 0], weights[weights > 0], rtol=1e-6)
    codes = fits.getdata(shared_data / name.format("ood"), 1)
    np.testing.assert_array_equal(ds.ccd.bad.values, (codes != 0) | ~np.isfinite(ds["data"].values))


@pytest.mark.parametrize("chunks", [0, -2, 1.5, "8MB", "88", None, (2,), (2, 3, 4), (2, None), (2, 0)])
def test_chunks_that_are_none(tmp_path: Path, chunks: Any) -> None:
    """What is no chunk shape is refused with what it must be."""
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 6), np.int16))]).writeto(tmp_path / "a.fits")
    with pytest.raises(ParameterError, match="must be one or two integers in the order y, x"):
        lazyccd.open_mef(tmp_path / "a.fits", chunks=chunks)

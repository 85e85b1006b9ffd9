"""What headers of masters say of the frames behind them, against the kernel's own counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lazyccd import combine, io
from lazyccd.batch.collect import collect
from lazyccd.batch.make_masters import CLIP
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.reduce import reduce
from lazyccd.batch.table import load_table, save_table
from lazyccd.errors import ParameterError
from lazyccd.rejection import SigmaClip
from lazyccd.testing import Detector, Sky, make_night

SHAPE = (40, 48)


def write_biases(folder: Path, count: int) -> None:
    """Write biases: one of another level, one with a ray."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(count):
        pixels = rng.normal(500 if number != 3 else 2500, 5, SHAPE)
        if number == 5:
            pixels[10, 20:24] += 3000
        header = fits.Header({"IMAGETYP": "bias", "EXPTIME": 0.0, "GAIN": 2.0, "RDNOISE": 10.0, "INSTRUME": "CAM"})
        header["DATE-OBS"] = f"2024-03-01T20:{number:02d}:00"
        fits.PrimaryHDU(pixels.astype("uint16"), header).writeto(folder / f"b{number:02d}.fits")


def test_headers_list_what_the_kernel_counted(tmp_path: Path) -> None:
    """The frames that the header names are those that were combined, and those that it leaves out are not among them."""
    write_biases(tmp_path / "raw", 13)
    run = reduce(tmp_path / "raw", tmp_path / "out", gain="stated")
    master = run.outcomes[0]
    header = fits.getheader(master.path)
    names = [header[key] for key in header if key.startswith("IMCMB")]
    assert set(names) == {f"b{number:02d}.fits" for number in range(13)} - {"b03.fits"}
    assert (header["LZNFRAME"], header["NCOMBINE"], header["LZNLEFT"]) == (12, 12, 1)
    assert header["LZLEFT1"].startswith("b03.fits: its level is 2")
    assert master.left_out == {"b03.fits": header["LZLEFT1"].removeprefix("b03.fits: ")}
    rule = SigmaClip(CLIP, CLIP, center="median", deviation="mad_std", iterations=1)
    frames = [io.open_fits(tmp_path / "raw" / name, unit="adu") for name in names]
    again = combine(frames, method="average", reject=rule, maps=("n_used", "n_rejected")).compute()
    counted = again["n_used"].values + again["n_rejected"].values
    assert np.unique(counted).tolist() == [header["NCOMBINE"]]
    made = io.open_fits(master.path)
    np.testing.assert_array_equal(made.ccd.is_flagged("CLIPPED").values, again["n_rejected"].values > 0)
    assert again["n_rejected"].values[10, 20:24].tolist() == [1] * 4
    np.testing.assert_allclose(made["data"].values, again["data"].values, rtol=1e-6)


@pytest.mark.parametrize("what", ["group", "header"])
def test_names_do_not_leave_the_folder(tmp_path: Path, what: str) -> None:
    """Names from a table are refused with file and row; those from headers become names of files."""
    make_night(tmp_path / "raw", Detector(SHAPE), Sky(stars=2), biases=2, darks=0, flats=2, lights=0)
    if what == "header":
        for path in (tmp_path / "raw").glob("flat*"):
            with fits.open(path, mode="update") as hdus:
                hdus[0].header["FILTER"] = "../../evil/.."
        run = reduce(tmp_path / "raw", tmp_path / "a" / "b" / "out", gain="stated")
        assert [outcome.status for outcome in run.outcomes if outcome.kind == "flat"] != ["FAILED"]
        assert {path.name for path in tmp_path.iterdir()} == {"raw", "a"}
        return
    table = tmp_path / "night.ecsv"
    save_table(build_plan(collect(str(tmp_path / "raw"))), table)
    for name in ("../../evil", "/tmp/evil", "a/b", "..", ".x", "a\\b", "x" * 200):
        changed = table.with_name("changed.ecsv")
        changed.write_text(table.read_text().replace("bias_2026-01-14", name))
        with pytest.raises(ParameterError, match=r"'changed.ecsv', bias001.fits: group .* becomes the name of a file"):
            load_table(changed)

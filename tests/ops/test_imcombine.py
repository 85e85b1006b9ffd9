"""``combine(flavor="iraf")`` against IRAF's imcombine, bit for bit: kept outputs, and IRAF itself where it is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.nddata import CCDData

from lazyccd import combine, errors, from_ccddata
from lazyccd.ops import rechunk
from lazyccd.ops.stack.rejection import RULES
from lazyccd.rejection import SigmaClip
from tests.ops.make_imcombine import CASES, COUNTS, frames, run_iraf

Array = npt.NDArray[Any]
SETTINGS = ("low", "high", "center", "order", "nlow", "nhigh", "readnoise", "gain", "snoise")
KEPT = np.load(Path(__file__).parent / "imcombine.npz")


def ours(options: dict[str, Any]) -> dict[str, Any]:
    """Return imcombine's parameters as those of `combine`."""
    names = {
        "combine": "method",
        "lsigma": "low",
        "hsigma": "high",
        "weight": "weights",
        "rdnoise": "readnoise",
        "pclip": "order",
    }
    given = {names.get(key, key): value for key, value in options.items() if key != "expname"}
    given["center"] = "mean" if given.pop("mclip", "yes") == "no" else "median"
    low, high = given.pop("lthreshold", None), given.pop("hthreshold", None)
    if low is not None or high is not None:
        given |= {"minmax_clip": True, "minmax_clip_min": low, "minmax_clip_max": high}
    settings = {key: given.pop(key) for key in SETTINGS if key in given}
    if "reject" in given:
        rule: Any = RULES[given["reject"]]
        given["reject"] = rule(**{key: value for key, value in settings.items() if key in rule.__dataclass_fields__})
    return given


def opened(count: int) -> list[xr.Dataset]:
    """Return the frames of the kept outputs."""
    values, cards = frames(count)
    return [from_ccddata(CCDData(v, unit="adu", meta=c)) for v, c in zip(values, cards, strict=True)]


@pytest.mark.parametrize(("count", "case"), [(n, c) for n in COUNTS for c in CASES if f"{n} {c} out" in KEPT])
@pytest.mark.filterwarnings("ignore::lazyccd.rejection.UselessRejectionWarning")
def test_every_bit_is_that_of_imcombine(count: int, case: str) -> None:
    """Values, and how many inputs were left out, for any chunks."""
    options = {"flavor": "iraf", "maps": ("n_used",), **ours(CASES[case])}
    result = rechunk(combine(opened(count), **options), (7, 37)).compute()
    expected, rejected = KEPT[f"{count} {case} out"], KEPT[f"{count} {case} n"]
    left = rejected < count
    np.testing.assert_array_equal((count - result["n_used"].values)[left], rejected[left])
    np.testing.assert_array_equal(result["data"].values[left], expected[left])
    if "grow" in CASES[case]:
        # where growing would leave nothing the value stays, though imcombine counts all inputs as rejected
        np.testing.assert_array_equal(result["data"].values[~left], expected[~left])
    else:
        assert np.isnan(result["data"].values[~left]).all()


@pytest.mark.skipif(shutil.which("irafcl") is None, reason="IRAF is not on this machine; its kept outputs are compared")
@pytest.mark.parametrize("case", ["sigclip", "scale median", "grow mean"])
def test_iraf_itself_gives_what_was_kept(case: str) -> None:
    """The outputs that are kept are those of IRAF."""
    out, rejected = run_iraf(*frames(8), CASES[case])
    np.testing.assert_array_equal(out, KEPT[f"8 {case} out"])
    np.testing.assert_array_equal(rejected, KEPT[f"8 {case} n"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reject": "winsorized"}, "flavor='iraf' has no 'winsorized'"),
        ({"sigma_clip": True, "sigma_clip_high_thresh": 2}, "flavor='iraf' has no 'sigclip' before scaling"),
        ({"reject": SigmaClip(deviation="mad_std")}, "has deviation='std' and no number of iterations"),
        ({"weights": "variance"}, "flavor='iraf' has no weights='variance'"),
    ],
)
def test_what_imcombine_does_not_have(options: dict[str, Any], message: str) -> None:
    """Is refused, with what there is."""
    with pytest.raises(errors.ParameterError, match=message):
        combine(opened(8), flavor="iraf", **options)

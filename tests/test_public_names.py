"""Lazy imports hide nothing: public names, ``ds.ccd`` and ``python -m lazyccd`` work in a new process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

import lazyccd
from lazyccd.accessor import CCDAccessor


def run(code: str, *words: str) -> str:
    """Run code in a new process in which warnings are errors, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code, *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Write an image, and return its name."""
    fits.PrimaryHDU(np.ones((4, 6), np.float32), fits.Header({"BUNIT": "adu"})).writeto(tmp_path / "a.fits")
    return str(tmp_path / "a.fits")


ORDERS = {
    "lazyccd first": "import lazyccd, xarray",
    "xarray first": "import xarray, lazyccd",
    "xarray looked for": "import lazyccd, importlib.util; importlib.util.find_spec('xarray'); import xarray",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_datasets_have_ccd(imports: str) -> None:
    """Any Dataset has ``.ccd``, whichever package is imported first; its first use imports the operations."""
    code = """
import sys
ds = xarray.Dataset({"data": (("y", "x"), [[1.0, 2.0]], {"units": "adu"})})
print("numba" in sys.modules, "lazyccd.accessor" in sys.modules, "_XarrayFinder" in str(sys.meta_path))
print(ds.ccd.unit, ds.ccd is ds.ccd, hasattr(xarray.DataTree, "ccd"))
"""
    assert run(f"{imports}\n{code}").splitlines() == ["False False False", "adu True True"]


def test_datasets_that_xarray_opens_alone_have_ccd(file: str) -> None:
    """A program that imports only xarray has the accessors once it opens a file with the lazyccd engine."""
    code = """
import sys, xarray
ds = xarray.open_dataset(sys.argv[1], engine="lazyccd")
tree = xarray.open_datatree(sys.argv[1], engine="lazyccd")
print(ds.ccd.unit, *tree.ccd.frames)
"""
    assert run(code, file).split() == ["adu", *lazyccd.open_mef(file).ccd.frames]


def test_star_import() -> None:
    """`from lazyccd import *` imports every public name, and no module."""
    code = "from types import ModuleType; from lazyccd import *; import lazyccd as l; print(l.__all__ == sorted(l.__all__), {n for n in l.__all__ if n not in globals()}, [n for n in l.__all__ if isinstance(globals()[n], ModuleType)])"
    assert run(code) == "True set() []"


def test_modules_are_attributes() -> None:
    """Public modules are attributes of the package; an unknown name raises."""
    names = ("accessor", "errors", "io", "mask_planes", "ops", "plot", "sections", "stats", "testing")
    code = f"import lazyccd; print(*(getattr(lazyccd, name).__name__ for name in {names}))"
    assert run(code).split() == [f"lazyccd.{name}" for name in names]
    assert set(lazyccd.__all__) | set(names) == set(dir(lazyccd))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lazyccd.no_such_name


def test_names_are_those_of_their_modules() -> None:
    """A public name is the object that its module defines, and can be pickled."""
    assert lazyccd.CCDData is CCDData
    assert lazyccd.add is lazyccd.ops.add
    assert isinstance(lazyccd.from_ccddata(CCDData([[1.0]], unit="adu")).ccd, CCDAccessor)
    for thing in (lazyccd.add, lazyccd.open_fits, lazyccd.Combiner, lazyccd.Keyword("GAIN")):
        assert type(pickle.loads(pickle.dumps(thing))) is type(thing)
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).__name__)"
    assert run(code, pickle.dumps(lazyccd.add).hex()) == "add"


def test_python_m_is_the_command_line(file: str) -> None:
    """``python -m lazyccd`` is the command ``lazyccd``."""
    command = [sys.executable, "-m", "lazyccd"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert version == f"lazyccd, version {lazyccd.__version__}\n"
    described = subprocess.run([*command, "info", file], capture_output=True, text=True, check=True).stdout
    assert "frame of 4 rows and 6 columns" in described
    wrong = subprocess.run([*command, "redce"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Usage: lazyccd" in wrong.stderr
    assert "No such command 'redce'" in wrong.stderr

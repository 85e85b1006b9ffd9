"""Rules of the architecture, checked in every file: layers, no cycles, graphs in one file, short functions, lazy imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from lazyccd.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = "lazyccd"

MAX_BODY_LINES = 40
"""A body of this length fits on a screen."""

LAYERS: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
"""For each layer: the layers that it may import, and the other packages."""


def _layer(name: str, *below: str, packages: tuple[str, ...] = ()) -> None:
    """Add a layer, which may import itself, these layers and all below them, and the packages of all of these."""
    layers = frozenset({name}).union(*(LAYERS[b][0] for b in below))
    LAYERS[name] = layers, frozenset(packages).union(*(LAYERS[b][1] for b in below))


_layer("base", packages=("numpy",))  # errors, mask_planes, sections
_layer("kernels", "base", packages=("numba", "llvmlite", "astroscrappy"))
_layer("plan", "kernels", packages=("dask", "distributed"))
_layer(
    "frame",
    "plan",
    packages=(
        "typing_extensions",
        "xarray",
        *(f"astropy.{p}" for p in ("config", "coordinates", "io.fits", "nddata", "units", "wcs")),
    ),
)
_layer(
    "io",
    "frame",
    packages=("astropy.table", "fsspec", "google_crc32c", "isal", "lazy_loader", "numcodecs", "psutil", "zarr"),
)
_layer("stats", "frame")
_layer("ops", "io", "stats", packages=("astropy.modeling", "scipy"))
_layer(
    "batch",
    "ops",
    packages=("PIL", "astropy.table", "astropy.time", "jinja2", "pydantic", "rich", "ruamel", "watchfiles"),
)
_layer("testing", "io", packages=("astropy.modeling", "hypothesis", "scipy"))
_layer("ccdproc", "ops", packages=("astropy",))  # the names and ways of ccdproc, for its scripts
_layer(
    "faces", "batch", "ccdproc", "testing", packages=("PIL", "astropy", "click", "lazy_loader", "matplotlib", "rich")
)  # accessor, plot, cli, ...

BASE = {"errors", "mask_planes", "sections"}

GRAPH_FILE = "lazyccd.plan.lower"
GRAPH_MODULES = ("dask.highlevelgraph", "dask.blockwise", "dask._task_spec", "dask.graph_manipulation")
GRAPH_CALLS = {"map_blocks", "map_overlap", "blockwise", "delayed", "from_delayed", "apply_ufunc", "apply_gufunc"}


@cache
def modules() -> dict[str, Path]:
    """Return all modules of the package by their absolute names."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(), str(path))


def imported(module: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of everything that a module imports, in functions too."""
    path = modules()[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def owner(name: str) -> str:
    """Return the module of lazyccd that an imported name belongs to."""
    return name if name in modules() else name.rpartition(".")[0]


def layer_of(module: str) -> str:
    """Return the layer of a module of lazyccd."""
    first = module.split(".")[1] if "." in module else ""
    if first in BASE:
        return "base"
    return first if first in LAYERS else "faces"


def is_inside(name: str, packages: frozenset[str] | tuple[str, ...]) -> bool:
    """Return whether a name is one of the packages or in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_only(module: str) -> None:
    """A module imports only what the table allows for its layer."""
    layers, packages = LAYERS[layer_of(module)]
    wrong = []
    for line, name in imported(module):
        if is_inside(name, (PACKAGE,)):
            allowed = layer_of(owner(name)) in layers
        else:
            allowed = name.split(".")[0] in sys.stdlib_module_names or is_inside(name, packages)
        if not allowed:
            wrong.append(f"{modules()[module].relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, f"layer {layer_of(module)!r} may import the layers {sorted(layers)} and {sorted(packages)}"


def test_no_module_imports_itself_through_others() -> None:
    """Imports form no cycle, even counting those inside functions."""
    graph = {
        module: {owner(name) for _, name in imported(module) if is_inside(name, (PACKAGE,))} - {module}
        for module in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def name_of(call: ast.Call) -> str:
    """Return the name of the called function, without its object."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


@pytest.mark.parametrize("module", [module for module in modules() if layer_of(module) != "faces"])
def test_the_accessor_is_for_users(module: str) -> None:
    """Nothing below the faces goes through ``.ccd``, which reaches every operation without an import that shows it."""
    nodes = ast.walk(parse(modules()[module]))
    assert not [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr == "ccd"]


@pytest.mark.parametrize("module", [module for module in modules() if module != GRAPH_FILE])
def test_only_lower_makes_graphs(module: str) -> None:
    """No other file imports the parts of dask graphs, or calls a function of dask or xarray that makes one."""
    wrong = [f"line {line} imports {name}" for line, name in imported(module) if is_inside(name, GRAPH_MODULES)]
    calls = [node for node in ast.walk(parse(modules()[module])) if isinstance(node, ast.Call)]
    wrong += [f"line {call.lineno} calls {name_of(call)}" for call in calls if name_of(call) in GRAPH_CALLS]
    assert not wrong, f"graphs are made in {GRAPH_FILE} alone"


@pytest.mark.parametrize("module", [module for module in modules() if layer_of(module) == "kernels"])
def test_kernels_are_compiled_by_our_decorator(module: str) -> None:
    """No kernel uses the cache of numba itself, which is not safe between processes; see `lazyccd.kernels.jit`."""
    if module == "lazyccd.kernels.jit":
        return
    bypasses = {"numba.njit", "numba.jit", "numba.vectorize", "numba.guvectorize", "numba.stencil"}
    names = [node for node in ast.walk(parse(modules()[module])) if isinstance(node, ast.Attribute)]
    wrong = [f"line {line} imports {name}" for line, name in imported(module) if name in bypasses]
    wrong += [f"line {name.lineno} uses {ast.unparse(name)}" for name in names if ast.unparse(name) in bypasses]
    assert not wrong, "use lazyccd.kernels.jit.compiled"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body less its docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("folder", [PACKAGE, "tests", "benchmarks"])
def test_functions_are_short(folder: str) -> None:
    """No function body is longer than the limit at the top."""
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        functions = [n for n in ast.walk(parse(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        wrong += [
            f"{path.relative_to(ROOT)}:{function.lineno} {function.name} has {body_lines(function)} lines"
            for function in functions
            if body_lines(function) > MAX_BODY_LINES
        ]
    assert not wrong, f"at most {MAX_BODY_LINES} lines for a function body"


UNNEEDED = (
    *(
        f"astropy.{name}"
        for name in ("coordinates", "modeling", "nddata", "stats", "table", "time", "visualization", "wcs")
    ),
    *(f"scipy.{name}" for name in ("integrate", "interpolate", "ndimage", "optimize", "signal", "spatial", "stats")),
    *("astroscrappy", "click", "distributed", "hypothesis", "matplotlib", "rich", "watchfiles", "zarr"),
)
"""Slow imports that only some users need."""


@cache
def modules_after(code: str) -> set[str]:
    """Return the modules that a new process has imported after some code."""
    code = f"{code}\nimport sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_operations_import_nothing_that_few_need() -> None:
    """The operations import numba, dask, xarray, and units and FITS of astropy, and nothing of the list above."""
    found = modules_after("import lazyccd.accessor; from lazyccd import conf, explain, open_fits, stats, to_zarr")
    assert {"xarray", "numba"} <= found
    assert not {name for name in found if is_inside(name, UNNEEDED)}


COMBINE = """
import numpy as np
from astropy.io import fits
from lazyccd.cli.main import main

for name in ("a.fits", "b.fits", "c.fits"):
    fits.writeto(name, np.ones((8, 8), "f4"), fits.Header({"BUNIT": "adu"}))
main(["combine", "a.fits", "b.fits", "c.fits", "-o", "out.fits", "--reject", "sigclip"], standalone_mode=False)
"""


def test_combine_imports_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lazyccd combine` imports no xarray and no arrays of dask's, no cluster, no other operation, and not what kernels were compiled from."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for number in "12":  # the first may have to compile the kernels
        (tmp_path / number).mkdir()
        monkeypatch.chdir(tmp_path / number)
        found = modules_after(f"{COMBINE}\n# {number}")
    assert "lazyccd.ops.stack.combine" in found
    unneeded = "lazyccd.accessor", "lazyccd.ops.mosaic", "lazyccd.io.zarr", "scipy.linalg", "scipy.special"
    kernels = "fits.hcompress", "fits.rice", "filters", "resample.area", "stack.imcombine"
    unneeded = (*unneeded, *(f"lazyccd.kernels.{name}" for name in kernels))
    libraries = "asyncio", "dask.array", "fsspec", "pandas", "xarray"
    found = {name for name in found if not is_inside(name, ("click",))}
    assert not {name for name in found if is_inside(name, (*UNNEEDED, *unneeded, *libraries))}


SCRIPT = """
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
import lazyccd.ccdproc as ccdproc

for name in ("bias", "flat", "light"):
    CCDData(np.full((1200, 1200), 7.0), unit="adu", header={"GAIN": 2.0}).write(f"{name}.fits")
frames = ccdproc.ImageFileCollection(".")
assert len(frames.summary) == 3 and len(frames.filter(gain=2.0).files) == 3
bias, flat, light = frames.ccds()
ccd = ccdproc.create_deviation(light, gain=2 * u.electron / u.adu, readnoise=5 * u.electron)
ccd = ccdproc.trim_image(ccdproc.subtract_overscan(ccd, fits_section="[1:20, :]", median=True), "[21:, :]")
ccd = ccdproc.subtract_bias(ccd, ccdproc.trim_image(bias, "[21:, :]"))
ccd = ccdproc.flat_correct(ccdproc.gain_correct(ccd, ccdproc.Keyword("GAIN", u.electron / u.adu)), ccdproc.trim_image(flat, "[21:, :]"))
ccdproc.block_average(ccdproc.transform_image(ccd, np.rot90), 2)
"""


def test_steps_of_ccdproc_import_what_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collections and steps of NumPy arithmetic begin as soon as ccdproc's: the libraries of graphs and kernels take twice as long."""
    monkeypatch.chdir(tmp_path)
    found = {name.split(".")[0] for name in modules_after(SCRIPT)}
    assert "astropy" in found
    assert not found & {"dask", "distributed", "fsspec", "numba", "pandas", "xarray", "zarr"}


def test_commands_print_by_say() -> None:
    """Commands print by `say`, which makes text harmless, and not by what prints it as it is."""
    files = sorted((ROOT / PACKAGE / "cli").glob("*.py"))
    assert [path.name for path in files if re.search(r"click\.s?echo", path.read_text())] == ["common.py"]


def test_a_command_ends_at_once() -> None:
    """Python does not look for cycles among the objects of libraries when a command has ended: that takes as long as a small stack."""
    last = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000))"
    command = "from lazyccd.cli.main import main; main(['recipe', '--schema'])"
    run = subprocess.run([sys.executable, "-c", f"{last}; {command}"], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "True"


LIGHT = ("import lazyccd", "from lazyccd.cli.main import main")
HELP = [["--version"], ["--help"], *([command, "--help"] for command in COMMANDS)]


@pytest.mark.parametrize(
    "code", [*LIGHT, *(f"from lazyccd.cli.main import main; main({words}, standalone_mode=False)" for words in HELP)]
)
def test_the_package_and_every_help_import_no_library(code: str) -> None:
    """`import lazyccd` imports lazy_loader only, and each help text only click as well, so that they answer at once."""
    found = {name.split(".")[0] for name in modules_after(code) - modules_after("")} - sys.stdlib_module_names
    assert found <= {"lazyccd", "lazy_loader", "click"}, found

"""The project's files agree on dependencies, version and commands, and every public name is documented."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import lazyccd
from lazyccd.cli.main import main

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

CONDA_NAMES = {
    "astropy": "astropy-base",
    "dask[array]": "dask-core",
    "isal": "python-isal",
    "matplotlib": "matplotlib-base",
    "moto[server]": "moto",
}
"""Names in conda-forge of packages that have another name there than on the Python package index."""


def in_conda(requirement: str) -> str:
    """Return a requirement under its name in conda-forge."""
    name, rest = re.fullmatch(r"([\w.\[\]-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    return CONDA_NAMES.get(name, name) + rest


def test_environment_yml_equals_pyproject() -> None:
    """The conda environment has the requirements of the package, its tests and its documentation, with equal limits."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    extras = PROJECT["optional-dependencies"]
    expected = [f"python{PROJECT['requires-python']}", "pip"]
    expected += map(in_conda, PROJECT["dependencies"] + extras["test"] + extras["docs"])
    assert sorted(environment["dependencies"]) == sorted(expected)


def test_one_version() -> None:
    """The module, the command line and the changelog's newest entry name the version of pyproject.toml."""
    version = PROJECT["version"]
    assert lazyccd.__version__ == version
    assert CliRunner().invoke(main, ["--version"], prog_name="lazyccd").output == f"lazyccd, version {version}\n"
    released = re.findall(r"^## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == version


def test_readme_commands_are_the_ones_that_ci_runs() -> None:
    """README has each of the two commands on a line of its own, and .ci/run runs both."""
    readme, script = ((ROOT / name).read_text().splitlines() for name in ("README.md", ".ci/run"))
    for command in ("pip install . && lazyccd demo", 'pip install -e ".[test]" && pytest'):
        assert command in readme
        assert any(line.endswith(f"'{command}'") for line in script)


@pytest.mark.parametrize("name", lazyccd.__all__)
def test_public_names_are_documented(name: str) -> None:
    """Every public name exists, and has a docstring that names every parameter."""
    thing = getattr(lazyccd, name)
    if isinstance(thing, str | int | float):
        return
    documented = thing if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing) else type(thing)
    text = documented.__doc__
    assert text, f"{name} has no docstring"
    if inspect.isroutine(thing):
        described = set(re.findall(r"^\s*\*{0,2}(\w+(?:, \*{0,2}\w+)*)(?: :.*)?$", text, re.MULTILINE))
        described = {parameter.strip("* ") for line in described for parameter in line.split(",")}
        assert not set(inspect.signature(thing).parameters) - described


def test_types_are_shipped() -> None:
    """The marker file tells type checkers that the package has types."""
    assert (ROOT / "lazyccd" / "py.typed").exists()


@pytest.mark.parametrize("slow", ["matplotlib", "distributed", "rich", "astroscrappy"])
def test_import_is_light(slow: str) -> None:
    """``import lazyccd`` does not import what only some users need."""
    code = f"import sys, lazyccd; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""Run ccdproc's own tests against `lazyccd.ccdproc`: ``python tests/ccdproc/run_suite.py [pytest arguments]``.

The tests come with ccdproc; no line of them is changed. Each process imports `lazyccd.ccdproc` under the name ccdproc, and of the
installed ccdproc its tests alone.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

START = """
from lazyccd.ccdproc.alias import use_as_ccdproc
use_as_ccdproc()
"""


def installed() -> Path:
    """Return the folder of the installed ccdproc, without importing it."""
    spec = importlib.util.find_spec("ccdproc")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def run_suite(*arguments: str) -> dict[str, str]:
    """Run the tests and return how each ended: "passed", "skipped", or what failed."""
    folder = installed()
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary, "sitecustomize.py").write_text(START)
        report = Path(temporary, "report.xml")
        paths = os.pathsep.join([temporary, str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-n0"]
        subprocess.run(
            [*command, f"--rootdir={folder}", str(folder), *arguments],
            cwd=temporary,
            env=os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        return {name: outcome for case in ElementTree.parse(report).iter("testcase") for name, outcome in [_read(case)]}


def _read(case: ElementTree.Element) -> tuple[str, str]:
    """Return the name of a test and how it ended."""
    name = f"{case.get('classname')}::{case.get('name')}"
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            return name, "skipped" if child.tag == "skipped" else f"{child.tag}: {child.get('message')}"
    return name, "passed"


if __name__ == "__main__":
    outcomes = run_suite(*sys.argv[1:])
    for name, outcome in outcomes.items():
        print(f"{'passed' if outcome == 'passed' else 'FAILED'} {name} {'' if outcome == 'passed' else outcome}")
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    print(f"{passed} of {len(outcomes)} passed")

"""Run the examples of ccdproc's documentation with ccdproc and with `lazyccd.ccdproc`, and compare what they show.

``python -m tests.ccdproc.run_documentation FOLDER``, where the folder has ccdproc's ``docs``, as its source distribution does.
Each page runs in order in a process of its own. Random numbers are the same for both, so that what examples show can be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
LIBRARIES = ("ccdproc", "lazyccd")
FLAGS = ("FLOAT_CMP", "IGNORE_WARNINGS", "IGNORE_OUTPUT", "REMOTE_DATA")
"""What pytest-doctestplus adds to doctest: no flag of these is needed to compare two runs."""

for flag in FLAGS:
    doctest.register_optionflag(flag)

CODE = re.compile(r"^\.\. (?:code|plot|code-block)::(?: *python)?\n((?:\n| +.*\n)+)", re.MULTILINE)
ADDRESS = re.compile(r" at 0x[0-9a-f]+|/tmp/\S+")


def examples(page: str) -> list[str]:
    """Return the sources of a page's examples, prompts and blocks of code, in the order of the page."""
    parser = doctest.DocTestParser()
    found = [(each.lineno, each.source) for each in parser.get_examples(page)]
    for match in CODE.finditer(page):
        lines = [line for line in match[1].splitlines() if not re.match(r" +:\w+:", line)]
        if ">>>" not in match[1]:
            found.append((page[: match.start()].count("\n"), _dedented(lines)))
    return [source for _, source in sorted(found)]


def _dedented(lines: list[str]) -> str:
    """Return lines without what all of them are indented by."""
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:] for line in lines).strip("\n") + "\n"


def run_page(library: str, page: Path) -> list[str]:
    """Return what each example of a page shows: its text and values, or the class of its exception."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.ccdproc.run_documentation", "--serve", library, str(page.resolve())]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    shown: list[str] = json.loads(done.stdout.splitlines()[-1])
    return shown


def serve(library: str, page: Path) -> list[str]:
    """Run the examples of a page in this process."""
    if library == "lazyccd":
        from lazyccd.ccdproc.alias import use_as_ccdproc

        use_as_ccdproc()
    warnings.simplefilter("ignore")
    seeded = np.random.default_rng
    np.random.default_rng = lambda seed=1: seeded(seed)
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_show(source, names) for source in examples(page.read_text())]


def _show(source: str, names: dict[str, Any]) -> str:
    """Run an example, and return what it shows and what it makes of the page's images."""
    before = {name: id(value) for name, value in names.items()}
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                exec(compile(source, "<example>", "single"), names)
            except SyntaxError:
                exec(compile(source, "<example>", "exec"), names)
    except Exception as error:
        return type(error).__name__
    lines = [ADDRESS.sub("", printed.getvalue())]
    changed = (name for name, value in sorted(names.items()) if before.get(name) != id(value))
    return "\n".join([*lines, *(f"{name} = {_summary(names[name])}" for name in changed if _is_image(names[name]))])


def _is_image(value: object) -> bool:
    """Return whether a value is one of an image, an HDU or an array."""
    return hasattr(value, "data") and not isinstance(value, type)


def _summary(image: Any) -> str:
    """Return a few numbers that tell two images apart."""
    parts = [image.data, getattr(getattr(image, "uncertainty", None), "array", None), getattr(image, "mask", None)]
    arrays = [np.asarray(part) for part in parts if isinstance(part, np.ndarray) and part.dtype.kind in "biuf"]
    numbers = [f"{float(np.nansum(array, dtype=float)):.4e}" for array in arrays]
    return " ".join(
        [type(image).__name__, *numbers, str(getattr(image, "unit", "")), *map(str, getattr(image, "meta", None) or [])]
    )


def main() -> int:
    """Run and compare all pages of a folder."""
    if sys.argv[1:2] == ["--serve"]:
        print("\n" + json.dumps(serve(sys.argv[2], Path(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    different = 0
    for page in sorted(parser.parse_args().folder.rglob("*.rst")):
        sources = examples(page.read_text())
        shown = [run_page(library, page) if sources else [] for library in LIBRARIES]
        failing = [sum(bool(re.fullmatch(r"\w+(Error|Exception)", text)) for text in texts) for texts in shown]
        wrong = [pair for pair in zip(sources, *shown, strict=True) if pair[1] != pair[2]]
        different += len(wrong)
        if sources:
            print(f"{page.name}: {len(sources)} examples, {failing[0]} and {failing[1]} fail, {len(wrong)} differ")
        for source, expected, found in wrong:
            print(f"    {source.strip()}\n        {expected!r}\n        became {found!r}")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())

"""Run the scripts of this folder with ccdproc and with lazyccd.ccdproc, and compare what they leave, print and say.

``python -m tests.ccdproc.run_scripts [--size 1024] [SCRIPT ...]`` prints a table. Each script runs on equal copies of simulated
frames, with ccdproc as ``python script.py`` and with lazyccd as ``python -m lazyccd.ccdproc script.py``. With ``--forked``,
processes that have imported the library already run the scripts: pixels are compared faster then, but times mean nothing.
"""

from __future__ import annotations

import argparse
import compileall
import math
import os
import re
import resource
import runpy
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from tests.ccdproc.simulated_night import write_night

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = sorted(path.stem for path in (HERE / "scripts").glob("*.py"))
COMMANDS = {"ccdproc": [sys.executable], "lazyccd": [sys.executable, "-m", "lazyccd.ccdproc"]}
"""How each library runs a script."""

DATA, UNCERTAINTY = 1e-5, 1e-4
"""Largest differences, relative to the value or to the median of the image."""

UNCERTAINTIES = ("UNCERT", "ERR")
OF_THE_FILE = ("CHECKSUM", "DATASUM", "DATE")
"""Extensions with uncertainties; keywords that no two files share."""

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
OBJECT = re.compile(r"<[^<>]*(?:<\w+>)?[^<>]* at 0x[0-9a-f]+>")
"""How Python shows what has no text of its own."""

WARNING = re.compile(r"\b(\w+Warning)\b")
OF_NUMPY = "RuntimeWarning"
"""NumPy's warnings about NaN depend on the order in which numbers are computed."""


@dataclass
class Outcome:
    """What a script did: its exit code, texts, the folder that it worked in, seconds of the clock and of processors."""

    code: int
    printed: str
    errors: str
    folder: Path
    seconds: float = math.nan
    busy: float = math.nan

    @property
    def warnings(self) -> set[str]:
        """Classes of the warnings that were shown."""
        return set(WARNING.findall(self.errors)) - {OF_NUMPY}

    @property
    def exception(self) -> str:
        """Class of the exception that ended the script."""
        lines = [line for line in self.errors.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
        return lines[-1].split(":")[0].rpartition(".")[2] if self.code and lines else ""


def run(library: str, script: Path, folder: Path) -> Outcome:
    """Run a script in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "always"}
    start, before = time.perf_counter(), _busy()
    done = subprocess.run(
        [*COMMANDS[library], str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds, busy = time.perf_counter() - start, _busy() - before
    return Outcome(done.returncode, done.stdout, done.stderr, folder, seconds, busy)


def _busy() -> float:
    """Return how many seconds processors have worked for the processes that this one has run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_forked(library: str, scripts: list[Path], folders: list[Path]) -> list[Outcome]:
    """Run scripts in forks of one process, which has imported the library."""
    pairs = [str(path) for pair in zip(scripts, folders, strict=True) for path in pair]
    command = [sys.executable, "-m", "tests.ccdproc.run_scripts", "--serve", library, *pairs]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "always"})
    outcomes = []
    for folder in folders:
        texts = [folder.with_suffix(end).read_text() for end in (".out", ".err", ".code")]
        outcomes.append(Outcome(int(texts[2]), texts[0], texts[1], folder))
    return outcomes


def serve(library: str, pairs: list[str]) -> None:
    """Import a library, and run each script in a fork."""
    if library == "lazyccd":
        from lazyccd.ccdproc.alias import use_as_ccdproc

        use_as_ccdproc()
    import ccdproc  # noqa: F401

    for script, folder in zip(pairs[::2], map(Path, pairs[1::2]), strict=True):
        child = os.fork()
        if not child:
            _be(script, folder)
        _, status = os.waitpid(child, 0)
        folder.with_suffix(".code").write_text(str(os.waitstatus_to_exitcode(status)))


def _be(script: str, folder: Path) -> None:
    """Become a process that runs a script."""
    for number, end in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(folder.with_suffix(end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    sys.argv, code = [script], 0
    warnings.simplefilter("always")
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Return in what ways what a script did differs, one line each."""
    lines = []
    for name in ("code", "exception", "warnings"):
        wanted, got = getattr(expected, name), getattr(found, name)
        if wanted != got:
            lines.append(f"{name}: {wanted} became {got}")
    lines += [f"printed: {line}" for line in _texts(expected.printed, found.printed)]
    files, others = (_files(outcome.folder) for outcome in (expected, found))
    lines += [f"{name}: only one of them wrote it" for name in sorted(files ^ others)]
    for name in sorted(files & others):
        pair = expected.folder / name, found.folder / name
        compare = _fits if ".fits" in name else lambda a, b: _texts(a.read_text(), b.read_text())
        lines += [f"{name}: {line}" for line in compare(*pair)]
    return lines


def _files(folder: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _texts(expected: str, found: str) -> list[str]:
    """Return where texts differ; numbers may by a part in 10000 or one in their last digit."""
    wanted, got = expected.splitlines(), found.splitlines()
    if len(wanted) != len(got):
        return [f"{len(wanted)} lines became {len(got)}: {wanted[-3:]}, {got[-3:]}"]
    return [f"{a!r} became {b!r}" for a, b in zip(wanted, got, strict=True) if not _same_line(a, b)]


def _same_line(a: str, b: str) -> bool:
    """Return whether two lines say the same."""
    a, b = (OBJECT.sub("<object>", text).replace("lazyccd.ccdproc", "ccdproc") for text in (a, b))
    if " ".join(NUMBER.sub("#", a).split()) != " ".join(NUMBER.sub("#", b).split()):
        return False
    numbers = zip(NUMBER.findall(a), NUMBER.findall(b), strict=True)
    return all(x == y or math.isclose(float(x), float(y), rel_tol=1e-4, abs_tol=_digit(x)) for x, y in numbers)


def _digit(number: str) -> float:
    """Return a bit more than one in the last decimal of a number; integers must be equal."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 1.01 * 10.0 ** (int(exponent or 0) - decimals) if decimals else 0.0


def _fits(expected: Path, found: Path) -> list[str]:
    """Return in what FITS files differ."""
    lines = []
    with fits.open(expected) as wanted, fits.open(found) as got:
        if [hdu.name for hdu in wanted] != [hdu.name for hdu in got]:
            return [f"extensions {[hdu.name for hdu in wanted]} became {[hdu.name for hdu in got]}"]
        for a, b in zip(wanted, got, strict=True):
            lines += [f"[{a.name}] {line}" for line in (*_headers(a.header, b.header), *_pixels(a, b))]
    return lines


def _headers(expected: fits.Header, found: fits.Header) -> list[str]:
    """Return in what headers differ."""
    keys, others = ([key for key in header if key not in OF_THE_FILE] for header in (expected, found))
    lines = [f"keywords {sorted(set(keys) ^ set(others))} are in one of them"] if set(keys) != set(others) else []
    if not lines and keys != others:
        lines.append(f"order of keywords: {keys} became {others}")
    for key in dict.fromkeys(key for key in keys if key in found):
        a, b = str(expected[key]), str(found[key])
        if key == "BITPIX" and expected[key] < 0:
            continue  # float64 stays float64, where ccdproc's LA Cosmic gives float32
        if _texts(a, b):
            lines.append(f"{key} = {a} became {b}")
        if str(expected.comments[key]) != str(found.comments[key]):
            lines.append(f"comment of {key}: {expected.comments[key]} became {found.comments[key]}")
    return lines


def _pixels(expected: Any, found: Any) -> list[str]:
    """Return in what the pixels of HDUs differ."""
    a, b = expected.data, found.data
    if a is None or b is None:
        return [] if a is b else ["pixels are in one of them"]
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return [f"{a.dtype} {a.shape} became {b.dtype} {b.shape}"]
    if a.dtype.kind not in "f":
        count = int((a != b).sum())
        return [f"{count} of {a.size} pixels differ"] if count else []
    tolerance = UNCERTAINTY if expected.name in UNCERTAINTIES else DATA
    scale = np.nanmedian(np.abs(a)) if np.isfinite(a).any() else 0.0
    wrong = ~np.isclose(b, a, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    worst = np.nanmax(np.abs(b - a)[wrong], initial=0) if wrong.any() else 0
    return [f"{wrong.sum()} of {a.size} pixels differ, by up to {worst} of {scale}"] if wrong.any() else []


def prepare(work: Path, size: int, names: list[str]) -> dict[str, dict[str, Path]]:
    """Write the frames, and a copy of them for each script and library."""
    write_night(work / "night", size)
    folders = {name: {library: work / library / name for library in COMMANDS} for name in names}
    for name in names:
        for folder in folders[name].values():
            shutil.copytree(work / "night", folder)
    return folders


def compare_forked(work: Path, size: int, names: list[str]) -> dict[str, list[str]]:
    """Return what differs by script; all run in forks of two processes."""
    folders = prepare(work, size, names)
    paths = [HERE / "scripts" / f"{name}.py" for name in names]
    with ThreadPoolExecutor(len(COMMANDS)) as threads:
        jobs = [threads.submit(run_forked, each, paths, [folders[name][each] for name in names]) for each in COMMANDS]
    outcomes = [job.result() for job in jobs]
    return {name: differences(*pair) for name, *pair in zip(names, *outcomes, strict=True)}


def compare(work: Path, size: int, names: list[str]) -> Iterator[tuple[str, list[str], list[float]]]:
    """Yield the name of each script, what differs, and the seconds that each library takes: of the clock, and of processors."""
    for name in names:
        folders = prepare(work, size, [name])[name]
        outcomes = [run(library, HERE / "scripts" / f"{name}.py", folders[library]) for library in COMMANDS]
        found = differences(*outcomes)
        shutil.rmtree(work)
        yield name, found, [o.seconds for o in outcomes] + [o.busy for o in outcomes]


def main() -> int:
    """Run and compare what the command line names."""
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", default=SCRIPTS)
    parser.add_argument("--size", type=int, default=96, help="rows and columns of an image")
    parser.add_argument("--forked", action="store_true", help="compare only")
    parser.add_argument("--work", type=Path, default=Path("/tmp/scripts_of_ccdproc"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    # as pip does of ccdproc: where Python writes no bytecode, a checkout would be parsed anew by each process, for up to a second
    compileall.compile_dir(ROOT / "lazyccd", quiet=1)
    if options.forked:
        forked = compare_forked(options.work, options.size, options.scripts)
        found = iter([(name, lines, [math.nan] * 4) for name, lines in forked.items()])
    else:
        found = compare(options.work, options.size, options.scripts)
    print(
        "| script | differences | ccdproc | lazyccd | ccdproc, processors | lazyccd, processors |\n|---|---|---|---|---|---|"
    )
    wrong, sums = False, [0.0] * 4
    for name, lines, seconds in found:
        print(f"| `{name}` | {len(lines) or 'none'} | " + " | ".join(f"{s:.2f} s" for s in seconds) + " |", flush=True)
        print("".join(f"    {line}\n" for line in lines), end="", file=sys.stderr, flush=True)
        wrong, sums = wrong or bool(lines), [a + b for a, b in zip(sums, seconds, strict=True)]
    print("| sum | | " + " | ".join(f"{s:.1f} s" for s in sums) + " |")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

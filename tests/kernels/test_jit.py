"""Compiled kernels are kept on disk, safely."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lazyccd.kernels.cache_folder import sources_digest
from lazyccd.kernels.jit import _SignatureFiles

SCRIPT = """
import sys
import numpy as np
from lazyccd.cli.common import friendly_errors
from lazyccd.kernels.jit import compiled

@compiled
def double(a):
    return a[0] + a[0]

with friendly_errors():
    for dtype in sys.argv[1:]:
        assert double(np.array([7], dtype=dtype)) == 14
compiler = "numba.np.linalg" in sys.modules
print(sum(double.stats.cache_hits.values()), int(compiler), double.stats.cache_path)
"""


def run_script(folder: Path, cache: str, *dtypes: str) -> tuple[int, bool, Path, str]:
    """Run a kernel in a new process.

    Return the number of signatures found on disk, whether what numba compiles with was loaded, where signatures are kept, and what
    a command says.
    """
    path = folder / "doubling.py"
    path.write_text(SCRIPT)
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-W", "error", str(path), *dtypes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    hits, compiler, place = done.stdout.split(maxsplit=2)
    return int(hits), compiler == "1", Path(place.strip()), done.stderr


def test_a_second_process_finds_the_kernels_of_the_first(tmp_path: Path) -> None:
    """What one process compiled, the next one loads, for each signature; commands say once that they compile, if they do.

    A process that compiles nothing does not load the compiler's knowledge, which takes longer than the import of numba.
    """
    cache = tmp_path / "cache"
    hits, compiler, place, said = run_script(tmp_path, str(cache), "float32", "int32")
    assert (hits, compiler) == (0, True)
    kept = place.parents[len(place.relative_to(cache).parts) - 2]
    assert (
        said
        == f"Compiling kernels for this machine, which takes up to a few minutes and is done once; they are kept in {kept}.\n"
    )
    assert run_script(tmp_path, str(cache), "float32", "int32") == (2, False, place, "")
    assert place.is_relative_to(cache)
    assert place.relative_to(cache).parts[0].startswith("kernels-")
    assert run_script(tmp_path, str(cache), "float32", "int32", "float64")[:2] == (2, True)


def test_python_says_that_it_compiles_too(tmp_path: Path) -> None:
    """On a line of its own, once, in a process where nobody set logging up."""
    path = tmp_path / "plain.py"
    plain = SCRIPT.replace("with friendly_errors():", "if True:").replace(
        "from lazyccd.cli.common import friendly_errors\n", ""
    )
    path.write_text(plain)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(path), "float32", "int32"]
    said = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr for _ in "ab"]
    assert said[0].startswith("Compiling kernels for this machine, ")
    assert said[0].count("\n") == 1
    assert said[1] == ""


def test_kernels_run_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """A cache folder that cannot be made is replaced by a temporary one, which is removed again."""
    hits, _, place, said = run_script(tmp_path, os.devnull, "float32")
    assert hits == 0
    assert not place.exists()
    assert "is done in each process: no cache folder can be written to; name one by NUMBA_CACHE_DIR.\n" in said


def test_the_digest_notices_a_changed_file(tmp_path: Path) -> None:
    """The name of the cache folder changes with the content and the name of any file, in subfolders too."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.py").write_text("x = 1\n")
    digests = [sources_digest(tmp_path)]
    (tmp_path / "sub" / "a.py").write_text("x = 2\n")
    digests.append(sources_digest(tmp_path))
    (tmp_path / "sub" / "a.py").rename(tmp_path / "sub" / "b.py")
    digests.append(sources_digest(tmp_path))
    assert len(set(digests)) == 3


def test_signatures_saved_at_once_keep_their_own_code(tmp_path: Path) -> None:
    """Two processes that both saw an empty index do not overwrite each other's code, as numba's own files do."""
    one, two = (_SignatureFiles(str(tmp_path), "kernel", "stamp") for _ in range(2))
    one.save("float32", "code of float32")
    index = one._load_index()
    (tmp_path / "kernel.nbi").unlink()  # as if the second process had looked before the first one wrote
    two.save("int32", "code of int32")
    one._save_index(index)
    assert one.load("float32") == "code of float32"
    assert one.load("int32") is None


CALLER = """
import sys
import numpy as np
from lazyccd.kernels.jit import compiled

@compiled
def double(a):
    return a[0] + a[0]

@compiled
def caller(a):
    return double(a) + 1

assert double(np.array([7.0])) == 14
library = next(iter(double.overloads.values())).library
print(type(library).__name__)
for name in sys.argv[1:]:
    print(library._parsed is None)
    assert caller(np.array([7.0])) == 15
    print(library._parsed is None)
"""


def test_intermediate_code_waits_for_a_kernel_that_needs_it(tmp_path: Path) -> None:
    """A kernel that was loaded is compiled into another one; without such a one, only its machine code is read."""
    path = tmp_path / "calling.py"
    path.write_text(CALLER)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(*names: str) -> list[str]:
        command = [sys.executable, str(path), *names]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert run() == ["JITCodeLibrary"]
    assert run("caller") == ["_KernelLibrary", "True", "False"]
    assert run("caller") == ["_KernelLibrary", "True", "True"]

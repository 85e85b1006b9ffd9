"""`compiled`, the decorator of every numba kernel, and the folder where compiled kernels are kept.

numba's own cache has three properties that a cluster cannot live with, hence the few lines here:

1. It does not notice that a kernel calls another one in a file that changed. So the folder's name holds a hash of every
   source file of `lazyccd.kernels`.
2. It numbers the files of a kernel's signatures as they come. Two processes that compile two signatures at the same
   moment take the same number, and one signature can then run the other's machine code. Here a file's name is a hash
   of its signature, and it is complete before the index names it; at worst an index entry is lost and made again.
3. It raises if no folder can be written to. Here the kernels are then compiled into a temporary folder.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a kernel at its first call, without the interpreter lock and with NumPy's division, and keep the result."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = _KernelCache(function)
    return cast("F", dispatcher)


def sources_digest(package: Path) -> str:
    """Return a hash of the names and contents of all Python files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder() -> Path:
    """Return the folder of the compiled kernels, which exists and can be written to.

    It lies in ``$NUMBA_CACHE_DIR``, else in ``$XDG_CACHE_HOME/lazyccd``, else in ``~/.cache/lazyccd``.
    """
    name = f"kernels-{sources_digest(Path(__file__).parent)}"
    folder = _cache_root() / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix=f"lazyccd-{name}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _cache_root() -> Path:
    """Return the folder that the user chose for numba, or the one for caches of this user."""
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR)
    # expanduser leaves "~" where there is no home; the relative folder that this would make is not wanted
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return home / "lazyccd" if home.is_absolute() else Path(os.devnull)


class _KernelCache(FunctionCache):
    """numba's cache of one function, in our folder."""

    def __init__(self, function: Callable[..., Any]) -> None:
        chosen = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(cache_folder())  # read by the constructor, and not meant for other packages
        try:
            super().__init__(function)
        finally:
            numba.config.CACHE_DIR = chosen
        locator = self._impl.locator
        self._cache_file = _SignatureFiles(
            locator.get_cache_path(), self._impl.filename_base, locator.get_source_stamp()
        )


class _SignatureFiles(IndexDataCacheFile):
    """numba's index and data files of one function, with a data file's name made from its signature."""

    def save(self, key: Any, data: Any) -> None:
        """Write the machine code of a signature, then name it in the index."""
        number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8])
        name = self._data_name(number)
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})

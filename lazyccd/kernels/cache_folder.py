"""The folder where compiled kernels are kept, and beside it what else is kept between processes. Imports no numba."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path


def sources_digest(package: Path) -> str:
    """Return a hash of the names and contents of all Python files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


TEMPORARY = "lazyccd-"
"""How the names of cache folders begin that are removed when the process ends."""


@functools.cache
def cache_folder() -> Path:
    """Return the folder of the compiled kernels, which exists and can be written to.

    It lies in ``$NUMBA_CACHE_DIR``, else in ``$XDG_CACHE_HOME/lazyccd``, else in ``~/.cache/lazyccd``.
    """
    name = f"kernels-{sources_digest(Path(__file__).parent)}"
    try:
        folder = cache_root() / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{name}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cache_root() -> Path:
    """Return the folder below which compiled kernels of all versions are kept."""
    own = os.environ.get("NUMBA_CACHE_DIR")
    if own:
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "lazyccd"

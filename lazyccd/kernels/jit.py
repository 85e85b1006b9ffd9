"""`compiled`, the decorator of every numba kernel, and the folder where compiled kernels are kept.

numba's own cache has four properties that are unsafe on a cluster or slow, hence the few lines here:

1. It does not notice that a kernel calls another one in a file that changed. So the folder's name holds a hash of every
   source file of `lazyccd.kernels`.
2. It numbers the files of a kernel's signatures in the order of compilation. Two processes that compile two signatures
   at the same moment take the same number, and one signature can then run the other's machine code. Here a file's name is a hash
   of its signature, and it is complete before the index names it; at worst an index entry is lost and made again.
3. It raises if no folder can be written to. Here the kernels are then compiled into a temporary folder.
4. It loads all that a compiler needs to know, and scipy's linear algebra with it, before it looks for machine code: 0.5 s of
   each process, where the import of numba takes 0.3 s. Here that waits for a kernel that must be compiled. Nor does a kernel
   that calls ``np.min`` import where numba compiles that from, for globals that machine code never looks at.
5. It reads the intermediate code of each kernel beside the machine code, for other kernels that may be compiled into one with it.
   That takes half of the time of loading a kernel. Here it waits for such a kernel, and the names that it defines are kept apart.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from llvmlite.binding import parse_bitcode
from numba.core import caching, codegen, environment
from numba.core.runtime.nrt import rtsys

from lazyccd.kernels.cache_folder import TEMPORARY, cache_folder

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a kernel at its first call and keep its code; it frees the interpreter lock and divides like NumPy."""
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = _KernelCache(function)
    return cast("F", dispatcher)


class _KernelLocator(caching._SourceFileBackedLocatorMixin, caching._CacheLocator):
    """Says where the machine code of the kernels in a file is kept."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_file = py_file
        self._lineno = py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(_folder_of(self._py_file))

    def ensure_cache_path(self) -> None:
        # numba tries to write a file into the folder, for each kernel; `cache_folder` has tried it once for all of them
        _folder_of(self._py_file).mkdir(parents=True, exist_ok=True)


@functools.cache
def _folder_of(py_file: str) -> Path:
    """Return the folder for the machine code of the kernels in a file."""
    # All installations share one cache: CI compiles once for two environments, and so does a developer for several
    # work trees. numba keys on Python, CPU and the source, but not on NumPy, whose array layout the machine code
    # knows.
    path, package = Path(py_file), Path(__file__).parent
    if not path.is_relative_to(package):
        return cache_folder() / str(_KernelLocator.get_suitable_cache_subpath(py_file))
    return cache_folder() / f"numpy-{np.__version__}" / path.relative_to(package).parent


class _LibraryState(NamedTuple):
    """What is kept of the library of a compiled kernel."""

    name: str
    machine_code: bytes
    bitcode: bytes
    """Intermediate code, for kernels that are compiled into one with this one."""

    symbols: tuple[str, ...]
    """Names that it defines."""


class _KernelLibrary(codegen.JITCodeLibrary):
    """The library of a kernel that was loaded, whose intermediate code is read when numba asks for it."""

    _bitcode = b""
    _parsed: Any = None

    @classmethod
    def load(cls, owner: Any, state: _LibraryState) -> _KernelLibrary:
        """Return the library of a state, as `_unserialize` of the base class does; ``owner`` is numba's code generator."""
        library = cls(owner, state.name)
        library.enable_object_caching()
        library._set_compiled_object(state.machine_code)
        library._bitcode = state.bitcode
        library._finalize_final_module()
        owner._engine._defined_symbols.update(state.symbols)
        return library

    @property
    def _shared_module(self) -> Any:
        """The intermediate code."""
        if self._parsed is None and self._bitcode:
            self._parsed, self._bitcode = parse_bitcode(self._bitcode), b""
        return self._parsed

    @_shared_module.setter
    def _shared_module(self, module: Any) -> None:
        self._parsed = module


class _KernelCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = [_KernelLocator]  # noqa: RUF012 - numba declares it so

    def reduce(self, cres: Any) -> Any:
        """Return what is kept of a compiled kernel."""
        (name, _, (machine_code, bitcode)), *more = super().reduce(cres)
        module = cres.library._get_module_for_linking()
        found = (value for values in (module.functions, module.global_variables) for value in values)
        symbols = tuple(value.name for value in found if not value.is_declaration)
        return _LibraryState(name, machine_code, bitcode, symbols), *more

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """Return the compiled kernel of what was kept."""
        owner = target_context.codegen()
        # numba makes the library in the middle of what it does, and for other packages as before
        owner.unserialize_library = functools.partial(_library_of, owner)
        return super().rebuild(target_context, payload)


def _library_of(owner: Any, state: Any) -> Any:
    """Return the library of what was kept, by us or by numba's own cache."""
    if isinstance(state, _LibraryState):
        return _KernelLibrary.load(owner, state)
    return type(owner).unserialize_library(owner, state)


class _KernelCache(caching.FunctionCache):
    """The machine code of one kernel on disk."""

    _impl_class = _KernelCacheImpl

    def __init__(self, py_func: Callable[..., Any]) -> None:
        # no call of numba's own __init__: it looks at files, for each kernel of a module of which one may be called
        self._name, self._py_func = repr(py_func), py_func
        self.enable()

    @functools.cached_property
    def _impl(self) -> Any:
        return self._impl_class(self._py_func)

    @functools.cached_property
    def _cache_path(self) -> Any:
        return self._impl.locator.get_cache_path()

    @functools.cached_property
    def _cache_file(self) -> Any:  # type: ignore[override] # numba sets it at once
        return _SignatureFiles(self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code of a signature; None if it must be compiled, which is logged."""
        # machine code calls nothing but this runtime
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
        if found is None:
            _announce_compiling()
            target_context.refresh()
        return found


@functools.cache
def _announce_compiling() -> None:
    """Log, once in a process, why the first call takes long.

    As a warning, because Python prints these where nobody set logging up: in scripts and notebooks too.
    """
    folder = cache_folder()
    what = "is done in each process: no cache folder can be written to; name one by NUMBA_CACHE_DIR"
    if not folder.name.startswith(TEMPORARY):
        what = f"is done once; they are kept in {folder}"
    logger.warning("Compiling kernels for this machine, which takes up to a few minutes and %s.", what)


class _SignatureFiles(caching.IndexDataCacheFile):
    """The index of one kernel, and a file for each signature whose name is made from that signature."""

    def _load_data(self, name: str) -> Any:
        with Path(self._data_path(name)).open("rb") as file:
            return _Unpickler(file).load()

    def save(self, key: Any, data: Any) -> None:
        """Write the machine code of a signature, then name it in the index."""
        digest = hashlib.sha256(repr((numba.__version__, key)).encode()).digest()
        name = self._data_name(int.from_bytes(digest[:8]))
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


class _Unpickler(pickle.Unpickler):
    """Reads machine code, without the modules of numba that it was compiled from."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object of a name; for environments a function that imports nothing for them."""
        found = super().find_class(module, name)
        return _rebuild_environment if found is environment._rebuild_env else found


def _rebuild_environment(module: str, constants: list[Any], name: str) -> Any:
    """Return the environment of a compiled function; one of numba's own functions has no globals, as none looks at them."""
    if not module.startswith("numba.") or module in sys.modules:
        return environment._rebuild_env(module, constants, name)
    found = environment.lookup_environment(name)
    if found is None:
        found = environment.Environment({"__name__": module})
        found.consts[:] = constants
        found.env_name = name
        environment.Environment._memo[name] = found
    return found

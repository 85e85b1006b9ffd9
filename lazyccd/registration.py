"""Make ``ds.ccd`` and ``tree.ccd`` exist as soon as both lazyccd and xarray are imported, in either order.

xarray has no entry point for accessors, and importing `lazyccd.accessor` imports every operation. So what is registered is a
function that imports the accessor at its first use; and if xarray is not imported yet, a finder of modules waits for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

    from lazyccd.accessor import CCDAccessor, CCDTreeAccessor


def register_accessors() -> None:
    """Register ``.ccd`` with xarray, now if it is imported, else as soon as it is."""
    if "xarray" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _XarrayFinder())


def _register() -> None:
    import xarray as xr

    xr.register_dataset_accessor("ccd")(_of_dataset)
    xr.register_datatree_accessor("ccd")(_of_tree)


def _of_dataset(ds: xr.Dataset) -> CCDAccessor:
    """Return the accessor of a frame; see `lazyccd.accessor.CCDAccessor`."""
    from lazyccd.accessor import CCDAccessor

    return CCDAccessor(ds)


def _of_tree(tree: xr.DataTree) -> CCDTreeAccessor:
    """Return the accessor of a tree of frames; see `lazyccd.accessor.CCDTreeAccessor`."""
    from lazyccd.accessor import CCDTreeAccessor

    return CCDTreeAccessor(tree)


class _XarrayFinder:
    """Finds xarray by the other finders, and registers ``.ccd`` once its module has been executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of xarray, with a loader that registers; None for all other modules."""
        if name != "xarray":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            self._register_after(spec.loader)
        return spec

    def _register_after(self, loader: Any) -> None:
        """Let a loader register after it has executed its module.

        The finder stays until then: `importlib.util.find_spec("xarray")` asks for the spec and imports nothing.
        """
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        # the loader itself, not one around it: others look at its class and ask it for sources and resources
        loader.exec_module = exec_module

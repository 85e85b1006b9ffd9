"""Let this process import `lazyccd.ccdproc` under the name ``ccdproc``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys

from lazyccd import ccdproc


def use_as_ccdproc() -> None:
    """Make ``import ccdproc``, and imports of its modules, give those of `lazyccd.ccdproc`.

    Where ccdproc is installed, its tests and the files that come with it are found, and no other part of it.
    """
    installed = importlib.util.find_spec("ccdproc")
    sys.modules["ccdproc"] = ccdproc
    for module in pkgutil.walk_packages(ccdproc.__path__, f"{ccdproc.__name__}."):
        name = module.name.removeprefix("lazyccd.")
        if name.rpartition(".")[2] not in ("__main__", "alias"):
            sys.modules[name] = importlib.import_module(module.name)
    if installed is not None and installed.submodule_search_locations is not None:
        (folder,) = installed.submodule_search_locations
        ccdproc.__path__.append(folder)
        ccdproc.__file__ = os.path.join(folder, "__init__.py")
        ccdproc.utils.__path__.append(os.path.join(folder, "utils"))

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

    Where ccdproc is installed, its sample data and tests are found beside them.
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
        ccdproc.utils.__path__.append(os.path.join(folder, "utils"))

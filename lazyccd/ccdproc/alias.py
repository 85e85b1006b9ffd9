"""Let this process import `lazyccd.ccdproc` under the name ``ccdproc``."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from lazyccd import ccdproc


def use_as_ccdproc() -> None:
    """Make ``import ccdproc``, and imports of its modules, give those of `lazyccd.ccdproc`."""
    sys.modules["ccdproc"] = ccdproc
    for module in pkgutil.walk_packages(ccdproc.__path__, f"{ccdproc.__name__}."):
        name = module.name.removeprefix("lazyccd.")
        if name.rpartition(".")[2] not in ("__main__", "alias"):
            sys.modules[name] = importlib.import_module(module.name)

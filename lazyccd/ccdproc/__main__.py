"""Run a script that imports ccdproc with `lazyccd.ccdproc` in its place: ``python -m lazyccd.ccdproc script.py [arguments]``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from lazyccd.ccdproc.alias import use_as_ccdproc


def main() -> None:
    """Run the script that the command line names."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m lazyccd.ccdproc script.py [arguments]")
    use_as_ccdproc()
    del sys.argv[0]
    # as Python does for scripts: modules beside the script can be imported
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()

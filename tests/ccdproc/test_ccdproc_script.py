"""A script for ccdproc runs unchanged by ``python -m lazyccd.ccdproc``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import ccdproc
import numpy as np
from ccdproc import CCDData, Combiner, ImageFileCollection
from ccdproc.core import subtract_bias
from ccdproc.utils.slices import slice_from_string
from beside import LEVEL

def main():
    print(sys.argv[1:], ccdproc.__name__, slice_from_string("[1:2]", fits_convention=True))
    for number in range(3):
        CCDData(np.full((4, 5), LEVEL + number), unit="adu").write(f"frame{number}.fits")
    collection = ImageFileCollection(".", keywords=["naxis1"])
    print([str(file) for file in collection.files_filtered(naxis1=5)])
    stack = Combiner(collection.ccds()).median_combine()
    print(subtract_bias(stack, stack).data.sum(), stack.data[0, 0], type(stack) is CCDData)

if __name__ == "__main__":
    main()
"""


def test_a_script_runs_unchanged(tmp_path: Path) -> None:
    """Imports of ccdproc and of its modules, arguments, modules beside the script and ``__main__`` work as with Python."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("LEVEL = 10.0\n")
    command = [sys.executable, "-m", "lazyccd.ccdproc", "script.py", "--fast"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "['--fast'] lazyccd.ccdproc (slice(0, 2, None),)",
        "['frame0.fits', 'frame1.fits', 'frame2.fits']",
        "0.0 11.0 True",
    ]


def test_without_a_script_the_usage_is_shown() -> None:
    """Without arguments there is nothing to run."""
    result = subprocess.run([sys.executable, "-m", "lazyccd.ccdproc"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("usage: python -m lazyccd.ccdproc script.py")

"""The runner of ccdproc's documentation finds examples and sees differences; the documentation itself is not kept here."""

from __future__ import annotations

from pathlib import Path

from tests.ccdproc.run_documentation import LIBRARIES, examples, run_page

PAGE = """
A page
------

    >>> import numpy as np
    >>> from ccdproc import CCDData, gain_correct
    >>> ccd = CCDData(np.random.default_rng().random((3, 4)), unit="adu")  # doctest: +SKIP
    >>> print(gain_correct.__module__)  # doctest: +ELLIPSIS
    somewhere

.. code-block:: python

    doubled = gain_correct(
        ccd, 2.0)

and

    >>> gain_correct(doubled, "text")
    Traceback
    >>> doubled.data.sum() > 0
    True
"""


def test_examples_are_found_run_and_compared(tmp_path: Path) -> None:
    """Prompts and blocks run in the order of the page; values, texts and classes of exceptions are what is compared."""
    page = tmp_path / "page.rst"
    page.write_text(PAGE)
    assert [source.split("(")[0] for source in examples(PAGE)][4:6] == ["doubled = gain_correct", "gain_correct"]
    theirs, ours = (run_page(library, page) for library in LIBRARIES)
    assert [theirs[3], ours[3]] == ["ccdproc.core\n", "lazyccd.ccdproc.calibrate\n"]
    del theirs[3], ours[3]
    assert theirs == ours
    assert theirs[2].startswith("\nccd = CCDData ")
    assert [theirs[3].split()[:3], theirs[4], theirs[5]] == [["doubled", "=", "CCDData"], "TypeError", "np.True_\n"]

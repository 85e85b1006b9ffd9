"""Show what `lazyccd reduce` does: simulate a small night, reduce it, and compare it with the truth.

The night goes through the same functions as a real one; nothing here knows how a frame is reduced. What is simulated is in
`lazyccd.testing`.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from lazyccd import io
from lazyccd.batch.collect import collect
from lazyccd.batch.html_report import write_report
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.night_plan import product_name
from lazyccd.batch.outcome import Outcome
from lazyccd.batch.report import PlainConsole, make_console, print_results
from lazyccd.batch.run import Run
from lazyccd.errors import TargetExistsError
from lazyccd.picture import draw_product
from lazyccd.plot import show
from lazyccd.testing import Detector, Night, Sky, make_night

MARK = ".lazyccd-demo"
"""File in a demo's folder; only a folder with it is emptied by the next demo."""


def run_demo(folder: Path) -> int:
    """Simulate a night in a folder, reduce it, check it against the truth, and return the exit status.

    Parameters
    ----------
    folder
        Made if it is not there; what an earlier demo left in it is removed.

    Returns
    -------
    int
        The exit status of `lazyccd reduce`.

    Raises
    ------
    TargetExistsError
        Raised if the folder exists and no demo made it.
    """
    mpl.use("Agg")  # servers have no display
    console = make_console()
    _clear(folder)
    began = time.monotonic()
    console.print("Simulating a night of a 1024 x 1024 camera: bias, dark, flat and light frames ...")
    night = make_night(folder / "raw", Detector((1024, 1024)), Sky(stars=400, galaxies=60))
    simulated = time.monotonic()
    console.print(f"Reducing it, as 'lazyccd reduce {folder / 'raw'} -o {folder / 'reduced'}' does ...")
    run = Run(build_plan(collect(str(folder / "raw"))), folder / "reduced", draw=draw_product)
    run()
    print_results(run, console)
    write_report(folder / "reduced")
    science = [outcome for outcome in run.outcomes if outcome.kind == "science" and outcome.path]
    for outcome in science:
        io.to_zarr(io.open_fits(outcome.path), folder / "reduced" / f"{product_name(outcome.name)}_red.zarr")
    if science:
        _before_and_after(night, science[0], folder / "before_and_after.png")
        console.print(_against_truth(night, science))
    _say_what_is_where(console, folder, simulated - began, time.monotonic() - simulated)
    return run.exit_status


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left."""
    # never by name alone: the folder that a user gives may be full of data
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise TargetExistsError(f"{folder} exists and no demo made it; name another folder: lazyccd demo FOLDER.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def _before_and_after(night: Night, outcome: Outcome, path: Path) -> None:
    """Draw a raw frame beside what became of it."""
    raw = next(name for name in night.paths if Path(name).name == outcome.name)
    figure, axes = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
    show(io.open_fits(raw), ax=axes[0]).set_title("raw")
    show(io.open_fits(outcome.path), ax=axes[1]).set_title("reduced")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _against_truth(night: Night, science: list[Outcome]) -> Table:
    """Return a table of how far the products are from what was simulated."""
    table = Table(
        "frame",
        "mean pull",
        "width of pull",
        title="Against the truth: (product - truth) / uncertainty, of good pixels",
    )
    truths = {Path(name).name: truth for name, truth in night.truths.items()}
    for outcome in science:
        truth = truths[outcome.name]
        ds = io.open_fits(outcome.path).compute()
        good = (ds["mask"].values == 0) & ~truth.bad & ~truth.cosmic_rays & ~truth.saturated
        # of width 1 if the uncertainties are honest, about 0 if nothing is left in or taken out
        pull = ((ds["data"].values - truth.electrons) / ds["uncertainty"].values)[good]
        table.add_row(outcome.name, f"{np.mean(pull):+.3f}", f"{np.std(pull):.3f}")
    return table


def _say_what_is_where(console: PlainConsole, folder: Path, simulating: float, reducing: float) -> None:
    """Print how long it took and where to look."""
    console.print(f"Simulated in {simulating:.1f} s, reduced and checked in {reducing:.1f} s. In {folder}:")
    console.print("  raw/                  the simulated night")
    console.print("  reduced/              *_red.fits and *_red.zarr; masters/, pictures/, report.html")
    console.print("  before_and_after.png  one frame before and after")

"""Reduce a night from Python as ``lazyccd reduce`` does: `reduce`."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lazyccd.batch.options import Options, as_option
from lazyccd.batch.recipe.recipe import Recipe
from lazyccd.batch.run import Compress, Format, Run, format_of, plan_night
from lazyccd.batch.veto import with_remembered
from lazyccd.errors import ParameterError
from lazyccd.io.names import Name


def reduce(
    night: Name | Iterable[Name],
    out: str | os.PathLike[str],
    *,
    recipe: Recipe | Name | None = None,
    format: Format | None = None,
    overwrite: bool = False,
    verify: bool = False,
    break_lock: bool = False,
    only_affected_by: Name | Iterable[Name] = (),
    max_failures: int | None = None,
    retries: int = 0,
    compress: Compress | None = None,
    chunks: int | None = None,
    **options: Any,
) -> Run:
    """Reduce a night of raw frames, as the command ``lazyccd reduce`` does.

    Parameters
    ----------
    night
        A folder, files, globs, ``@lists``, a `Collection`, or a table that ``lazyccd reduce --dry-run --save`` wrote.
    out
        Folder for the products.
    recipe
        What is done to the frames: a `Recipe`, or the name of a file. Options that are given here take precedence over it.
    format
        ``fits`` or ``zarr``, by default that of the recipe; masters are FITS.
    overwrite
        Replace products that exist.
    verify
        When resuming, check finished regions by checksum rather than by size.
    break_lock
        Reduce although a process on another machine may still be reducing the same night.
    only_affected_by
        Frames of the night: only what is made of them is made.
    max_failures
        Stop after so many products failed; None to go on whatever happens.
    retries
        How often a product that failed is tried again at once.
    compress
        How FITS products are compressed without loss: ``RICE_1``, ``GZIP_2``, ``HCOMPRESS_1`` or ``none``; by default as the
        recipe says.
    chunks
        Side in pixels of the chunks in which products are computed, which changes no pixel; by default the largest that
        fit into the memory limit.
    **options
        Those of the command, with underscores: ``gain``, ``readnoise``, ``saturate``, ``overscan``, ``trim``, ``camera``,
        ``bias``, ``dark``, ``flat``, ``bpm``, ``calib``, ``max_level``, ``veto``, ``cosmic_rays``, ``allow_missing``, ``on_error``, ``recursive``,
        ``force``. None is as good as left out.

    Returns
    -------
    Run
        The night that was reduced: ``outcomes`` has what became of each product, ``plan`` the reason for every decision,
        ``exit_status`` that of the command. To print it as the command does, hand it to ``lazyccd.batch.report.print_results``.

    Raises
    ------
    RecipeError
        Raised if the recipe has faults.
    FormatError
        Raised if none of the files can be used.
    TargetExistsError
        Raised if products exist that no run into this folder made, and ``overwrite`` is false.
    ResumeError
        Raised if products were made of another night or with other settings, and ``overwrite`` is false.
    ParameterError
        Raised if there is no such option.
    """
    if recipe is not None and not isinstance(recipe, Recipe):
        options, recipe = {**options, "recipe": os.fspath(recipe)}, None
    only = [only_affected_by] if isinstance(only_affected_by, (str, os.PathLike)) else only_affected_by
    plan = plan_night(night, with_remembered(_options(options), out), recipe, compress=compress)
    run = Run(
        plan,
        Path(out),
        format_of(plan, format, compress),
        overwrite,
        verify,
        break_lock,
        only_affected_by=tuple(os.fspath(name) for name in only),
        max_failures=max_failures,
        retries=retries,
        chunks=chunks,
    )
    run()
    return run


def _options(given: dict[str, Any]) -> Options:
    """Return options in the form that they have as words of a command."""
    fields = {field.name: field.default for field in dataclasses.fields(Options)}
    for name in given:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(fields)}."
            raise ParameterError(f"reduce() has no option {name!r}; {hint}")
    words = {name: as_option(name, value) for name, value in given.items() if value is not None}
    return Options(**words)

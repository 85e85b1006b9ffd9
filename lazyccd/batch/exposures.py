"""Exposures of several images: each image is a frame of the night, and the products of an exposure become one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from lazyccd import io
from lazyccd.batch.night import Recipe
from lazyccd.frame.header import cards_of
from lazyccd.frame.tree import make_tree
from lazyccd.io.fits.companions import images_of
from lazyccd.io.fits.hdus import scan_fits
from lazyccd.io.fits.mef import frame_names


def file_of(recipe: Recipe) -> str:
    """Return the name of the file that an image of several is in; empty if it is the only one."""
    return recipe.name.partition("[")[0] if recipe.part else ""


def exposures(recipes: Iterable[Recipe]) -> dict[str, list[Recipe]]:
    """Return the recipes of each file that holds several images."""
    found: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        if recipe.part:
            found.setdefault(file_of(recipe), []).append(recipe)
    return found


def gather(recipes: Iterable[Recipe], products: Mapping[str, str], target: Path, **writing: Any) -> str:
    """Write the products of an exposure as one file, in the order and with the names and tables of the raw one.

    Parameters
    ----------
    recipes
        Those of its images.
    products
        Path of the product of each image, by the name of its recipe.
    target
        File, or Zarr store if it ends in ``.zarr``.
    writing
        Passed to the writer.
    """
    listed = list(recipes)
    raw = listed[0].source.partition("[")[0]
    tree = io.open_mef(raw)
    names = {hdu.label: name for hdu, name in frame_names(images_of(scan_fits(raw)))}
    root = str(tree.attrs["header"])
    shared = dict(cards_of(root))
    frames: dict[str, xr.Dataset] = {}
    for recipe in listed:
        frame = io.as_frame(products[recipe.name])
        same = [key for key, lines in cards_of(str(frame.attrs["header"])) if shared.get(key) == lines]
        frames[names[f"[{recipe.part}]"]] = frame.assign_attrs(
            inherited=" ".join(key.replace(" ", "_") for key in same)
        )
    write = io.to_zarr if target.suffix == ".zarr" else io.to_fits
    return str(write(make_tree(frames, tree.attrs), target, **writing))

"""Several images as one: their parts put side by side by one step, each read where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lazyccd.frame.core import Image, regular_grid
from lazyccd.frame.units import conversion_factor
from lazyccd.kernels import assemble
from lazyccd.plan.footprints import Placed
from lazyccd.plan.steps import Apply, Input, make_dtypes, make_params
from lazyccd.sections import Region

SIDE = 2048
"""Side of the chunks of what is put together."""


@dataclass(frozen=True)
class Piece:
    """A part of an image and where it goes."""

    image: Image
    source: Region
    """The part, in pixels of the image."""

    place: Region
    """Where it goes, of the same shape."""

    step: tuple[int, int] = (1, 1)
    """1, or -1 for an axis that is flipped."""

    label: str = "frame"
    """How messages name the image."""


def paste(pieces: Sequence[Piece], shape: tuple[int, int]) -> Image:
    """Return the image that pieces make, in the units of the first; NaN and NO_DATA where there is none.

    It has a mask if an image has one or the pieces leave gaps, and a variance if an image has one. Places must not overlap.

    Raises
    ------
    UnitError
        Raised if units cannot be converted to those of the first.
    """
    first = pieces[0].image
    schema = first.schema
    for piece in pieces:
        schema = schema.merge(piece.image.schema) if piece.image.has_mask else schema
    gaps = sum(piece.place.size for piece in pieces) < shape[0] * shape[1]
    dtype = np.result_type(*(piece.image.dtype for piece in pieces))
    dtypes = make_dtypes(
        data=dtype,
        variance=dtype if any(piece.image.has_variance for piece in pieces) else None,
        mask=schema.dtype if gaps or any(piece.image.has_mask for piece in pieces) else None,
    )
    parts = tuple(
        (
            piece.place,
            piece.step,
            conversion_factor(piece.image.units, first.units, piece.label),
            piece.image.schema.remap(schema) if piece.image.has_mask else (),
        )
        for piece in pieces
    )
    plan = Apply(
        shape,
        dtypes,
        kernel=assemble.paste,
        sources=tuple(Input(p.image.plan, Placed(p.place, p.source, p.step)) for p in pieces),
        params=make_params(
            parts=parts,
            dtypes=tuple((name, d.name) for name, d in dtypes),
            no_data=schema.bits("NO_DATA"),
        ),
    )
    return replace(
        first,
        plan=plan,
        grid=regular_grid(shape, (SIDE, SIDE)),
        schema=schema,
        y=np.arange(shape[0]),
        x=np.arange(shape[1]),
        graphs=tuple(graph for piece in pieces for graph in piece.image.graphs),
    )


def below_each_other(images: Sequence[Image]) -> Image:
    """Return images one above the other in one, for numbers that hold for all of them together."""
    pieces, row = [], 0
    for image in images:
        ny, nx = image.shape
        pieces.append(Piece(image, Region.full(image.shape), Region(row, row + ny, 0, nx)))
        row += ny
    return paste(pieces, (row, max(image.shape[1] for image in images)))

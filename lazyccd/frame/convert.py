"""Steps that turn what others hold into what plans work on: floats, variances, mask planes.

Each is a step and not a conversion at once, since the pixels may be a dask array or a file that nobody has read yet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lazyccd.errors import FrameError
from lazyccd.frame.kinds import is_dask_array
from lazyccd.kernels import pointwise
from lazyccd.mask_planes import FlagTable, MaskSchema
from lazyccd.plan.steps import Apply, Input, Step, make_dtypes, make_params

ARITHMETIC = {"abs", "add", "floordiv", "mod", "mul", "neg", "pow", "sub"}
"""First words of the names that dask gives to arrays made by arithmetic that keeps integers."""


def cast_step(step: Step, dtype: npt.DTypeLike) -> Step:
    """Return a step that gives the plane ``data`` in the given dtype."""
    dtype = np.dtype(dtype)
    # no step for nothing: it would cost a copy of each block
    if step.dtypes["data"] == dtype:
        return step
    return Apply(
        step.shape,
        make_dtypes(data=dtype),
        kernel=pointwise.cast,
        sources=(Input(step),),
        params=make_params(dtype=dtype.name),
    )


def to_variance(step: Step, kind: str) -> Step:
    """Return a step that gives the variance of a given type of uncertainty, in the plane ``data``."""
    if kind == "var":
        return step
    kernel = pointwise.square if kind == "std" else pointwise.inverse
    return Apply(step.shape, step.planes, kernel=kernel, sources=(Input(step),))


def to_mask(step: Step, table: FlagTable | None, where: str = "frame") -> Step:
    """Return a step that gives a mask of this package, of one that others may have made.

    Booleans, and integers without a table, become the plane BAD where they are not 0. Integers that no plane stands for
    raise when they are computed.
    """
    dtype = step.dtypes["data"]
    if dtype.kind == "b" or table is None:
        schema = MaskSchema() if table is None else table.schema
        params = make_params(bit=schema.bits("BAD"), dtype=schema.dtype.name)
        return Apply(
            step.shape,
            make_dtypes(data=schema.dtype),
            kernel=pointwise.mask_from,
            sources=(Input(step),),
            params=params,
        )
    if dtype.kind not in "iu":
        raise FrameError(
            f"the mask of the {where} has dtype {dtype} and must be an integer or boolean array; arithmetic on a whole "
            "frame changes its mask, so use add, subtract, multiply or divide, or with_mask(array)."
        )
    # integers mean here what they meant there: nothing to look up pixel by pixel
    if table.is_native:
        return cast_step(step, table.schema.dtype)
    return Apply(
        step.shape,
        make_dtypes(data=table.schema.dtype),
        kernel=pointwise.recode,
        sources=(Input(step),),
        params=make_params(
            pairs=table.pairs, exclusive=table.exclusive, dtype=table.schema.dtype.name, where=where, names=table.text
        ),
    )


def named_bits(step: Step, table: FlagTable) -> Step:
    """Return an integer mask that raises when it is computed if it has bits that no plane names."""
    if step.dtypes["data"].kind not in "iu" or not table.is_native:
        return step
    params = make_params(known=(1 << len(table.planes)) - 1)
    return Apply(step.shape, step.planes, kernel=pointwise.named_bits, sources=(Input(step),), params=params)


def refuse_arithmetic(array: object, what: str) -> None:
    """Refuse an integer mask that is the sum, product, ... of masks: what arithmetic on a whole Dataset leaves."""
    if not is_dask_array(array) or array.name.partition("-")[0] not in ARITHMETIC:
        return
    # only slices and rechunks are looked through: what else was done to a mask, its author meant
    todo = list(array.dask.dependencies.get(array.name, ()))
    while todo:
        name = todo.pop()
        if name.endswith("-mask"):
            raise FrameError(
                f"the mask of the {what} was made from a mask by {array.name.partition('-')[0]!r}, which arithmetic on a "
                "whole frame does; use add, subtract, multiply or divide, or combine masks by | and &, or with_mask(array)."
            )
        if name.startswith(("getitem-", "rechunk-")):
            todo.extend(array.dask.dependencies[name])

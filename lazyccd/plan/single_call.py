"""Single calls: an operation on arrays in memory whose result is computed before the call returns.

Inside of one, steps get tokens that are only different from all others: nobody compares them with those of another call, and to
hash the pixels of an image takes longer than to subtract a bias from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lazyccd.kernels.block import Array

# a context variable and no global: other threads may build lazy frames at the same time
_held: ContextVar[dict[str, Array] | None] = ContextVar("lazyccd_held", default=None)
_numbers = itertools.count()


@contextmanager
def single_call() -> Iterator[None]:
    """Hold the arrays of one call; a call inside of another belongs to it."""
    if _held.get() is not None:
        yield
        return
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def held_arrays() -> dict[str, Array] | None:
    """Return the arrays of the single call that runs, by name; None if none does."""
    return _held.get()


def hold(array: Array) -> str:
    """Hold an array for the single call that runs, and return the name under which steps read it."""
    held = _held.get()
    assert held is not None
    name = f"held-{next(_numbers)}"
    held[name] = array
    return name


def unique_token() -> str:
    """Return a token that no other step has; empty outside of single calls, where equal steps must have equal ones."""
    return "" if _held.get() is None else f"single-{next(_numbers)}"

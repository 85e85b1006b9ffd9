"""A plan as plain data: what archives keep of how an image was made, and what tells one run from another.

Tokens of dask do not serve for that: they hold for one version of dask and one interpreter (dask#10905), and a write is resumed
by another process, perhaps years later.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from dask.tokenize import tokenize

from lazyccd.plan.steps import Reduction, Scalar, Scalars, Source, Step, kernel_name, walk

LONGEST_LIST = 64
"""Arrays of more numbers are named by a hash."""


_described: WeakKeyDictionary[Step, list[dict[str, Any]]] = WeakKeyDictionary()
"""What is known of plans that are in use. A night makes thousands, and must not keep them."""


def describe(root: Step) -> list[dict[str, Any]]:
    """Return the steps of a plan, inputs first, as what JSON can hold; equal plans give equal lists in any process.

    Each has ``step`` (its name), ``inputs`` (positions in the list) and what else defines it: ``source``, ``kernel``,
    ``parameters``, ``scalars``. Steps from which scalars are made come before those that use them. The list is kept
    for the next call, and must not be changed.
    """
    # A writer asks twice: for the fingerprint of the run and for the provenance in the product.
    records = _described.get(root)
    if records is None:
        records = []
        _add(root, records, {})
        _described[root] = records
    return records


def sources(*roots: Step) -> Iterator[Source]:
    """Yield the files and stores that plans read, those of their scalars included; what plans share is looked at once."""
    seen: set[str] = set()
    todo = list(roots)
    while todo:
        found: list[Step] = []
        for step in walk(*todo, seen=seen):
            if isinstance(step, Source):
                yield step
            _add_reductions(step.scalars, seen, found)
        todo = found


def _add_reductions(scalars: Scalars, seen: set[str], found: list[Step]) -> None:
    """Add the plans of the reductions that make scalars, and those of the scalars that these use."""
    for _, scalar in scalars:
        if scalar.reduction is not None and scalar.token not in seen:
            seen.add(scalar.token)
            found.append(scalar.reduction.step)
            _add_reductions(scalar.reduction.scalars, seen, found)


def _add(root: Step, records: list[dict[str, Any]], places: dict[str, int]) -> int:
    """Add the steps of a plan that are not there yet; return the position of its last."""
    for step in walk(root):
        if step.token in places:
            continue
        scalars = _describe_scalars(step.scalars, records, places)
        record = {"step": step.label, "inputs": [places[i.token] for i in step.inputs], **plain(step.describe())}
        places[step.token] = len(records)
        records.append(record | ({"scalars": scalars} if scalars else {}))
    return places[root.token]


def _describe_scalars(scalars: Scalars, records: list[dict[str, Any]], places: dict[str, int]) -> dict[str, Any]:
    """Return scalars by name: their numbers, or how these are made."""
    return {name: _describe_scalar(scalar, records, places) for name, scalar in scalars}


def _describe_scalar(scalar: Scalar, records: list[dict[str, Any]], places: dict[str, int]) -> Any:
    """Return the numbers of a scalar, or how these are made."""
    if scalar.given is not None:
        return plain(scalar.given)
    reduction = scalar.reduction
    assert isinstance(reduction, Reduction)
    below = _describe_scalars(reduction.scalars, records, places)
    return {
        "of": _add(reduction.step, records, places),
        "what": scalar.what,
        "kernel": kernel_name(reduction.partial),
        "parameters": plain(dict(reduction.params)),
        "region": list(reduction.region),
        **({"scalars": below} if below else {}),
    }


def plain(value: object) -> Any:
    """Return a parameter as what JSON can hold, the same in any process.

    Examples
    --------
    >>> plain({"size": (2, 2), "func": np.mean, "level": np.float32(np.inf)})
    {'size': [2, 2], 'func': 'numpy.mean', 'level': 'inf'}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    # JSON has no NaN and no infinities
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist()) if value.size <= LONGEST_LIST else _hashed(value)
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    # the order of a set of strings differs from process to process
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields(value)}}
    return _function(value) if callable(value) else f"{type(value).__name__} {tokenize(value)}"


def _hashed(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return what identifies a large array."""
    # linearity tables and maps of gains would fill the header of a store
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": content}


def _function(function: Callable[..., Any]) -> str:
    """Return the name of a function that can be imported, and a hash of what cannot."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    module, _, attribute = name.rpartition(".")
    # what a name in __main__ means is another thing in the next script
    try:
        if module != "__main__" and getattr(importlib.import_module(module), attribute) is function:
            return name
    except (ImportError, AttributeError, ValueError):
        pass
    return f"{name} {tokenize(function)}"

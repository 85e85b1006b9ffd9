"""The attributes of a store: what users attached, the header, and how each image was made.

1. `json_attrs` has what users and other packages attached, as JSON: converted where that keeps the meaning, else refused by
   name, before anything is written.
2. `product_attrs` has the header that is true for the pixels of a group.
3. `root_attributes` has the provenance of all groups: steps, input files, versions; no clock time. Its checksums come last
   (`with_checksums`).
"""

from __future__ import annotations

import datetime
import hashlib
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np

from lazyccd.errors import FrameError, SourceChangedError
from lazyccd.frame.core import Image
from lazyccd.frame.header import header_to_text
from lazyccd.frame.output_header import product_header, signed
from lazyccd.frame.units import unit_to_text
from lazyccd.io.resumable.disk import checksum
from lazyccd.io.resumable.progress import canonical, versions
from lazyccd.plan.job import job_cpus
from lazyccd.plan.serialize import describe, plain, sources

FORMAT_VERSION = 1
"""Version of the layout of Zarr stores, docs/format.md."""

PIECE_BYTES = 1 << 20
"""Bytes of a file that are read at a time: they stay in the processor's cache for their checksum."""

_WAYS_OUT = {
    "bytes": "decode them to a string",
    "set": "sort it into a list",
    "frozenset": "sort it into a list",
    "complex": "give real and imaginary part",
    "Quantity": "give the value, and its unit in an attribute of its own",
    "Time": "give its isot",
}


def json_attrs(attrs: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Return attributes as JSON holds them.

    NumPy's numbers become Python's, arrays and tuples lists, dates ISO 8601 strings, paths strings.

    Parameters
    ----------
    attrs
        Attributes of a Dataset, a variable or a tree.
    what
        What they belong to, for messages.

    Raises
    ------
    FrameError
        Raised if a value would lose its meaning: bytes, sets, complex numbers, NaN and infinities, quantities, objects, and
        keys that are no strings.

    Examples
    --------
    >>> json_attrs({"seeing": np.float32(1.5), "shape": (2, 3), "start": np.datetime64("2024-03-01")}, "frame")
    {'seeing': 1.5, 'shape': [2, 3], 'start': '2024-03-01'}
    """
    for key in attrs:
        if not isinstance(key, str):
            _refuse(f"attribute {key!r} of the {what} has a {type(key).__name__} as its name", "name it by a string")
    return {key: _plain(value, f"attribute {key!r} of the {what}") for key, value in attrs.items()}


def _plain(value: Any, where: str) -> Any:
    """Return a value as JSON holds it."""
    # np.datetime64 in nanoseconds becomes an integer by item(), and a subclass of an array may have more than its numbers.
    if isinstance(value, np.datetime64):
        return _refuse(f"{where} is NaT", "leave it out") if np.isnat(value) else str(value)
    if type(value) is np.ndarray and value.dtype.kind in "biufUM" and value.dtype != np.longdouble:
        return _of_array(value, where)
    if isinstance(value, np.generic) and not isinstance(value, np.void | np.timedelta64 | np.longdouble):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            _refuse(f"{where} is {value}, which JSON has no word for", "leave it out, or give a string")
        return value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"item {i} of {where}") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _of_mapping(value, where)
    kind = type(value).__name__
    way_out = _WAYS_OUT.get(kind, "give a number or a string")
    return _refuse(f"{where} is {value!r:.60}, and JSON has no {kind}", way_out)


def _of_array(value: np.ndarray[Any, Any], where: str) -> Any:
    """Return an array as lists; an array without axes is its only value."""
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        _refuse(f"{where} has values that are not finite, which JSON has no word for", "leave them out")
    if value.dtype.kind == "M":
        if np.isnat(value).any():
            _refuse(f"{where} has a NaT", "leave it out")
        value = value.astype(str)
    return value.tolist()


def _of_mapping(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return a mapping, whose keys must be strings."""
    odd = next((key for key in value if not isinstance(key, str)), None)
    if odd is not None:
        _refuse(f"{where} has the key {odd!r}, and keys of JSON are strings", "convert it to one")
    return {key: _plain(item, f"{key!r} of {where}") for key, item in value.items()}


def _refuse(problem: str, way_out: str) -> NoReturn:
    """Raise the error of an attribute."""
    raise FrameError(f"{problem}; {way_out}, for example with ds.assign_attrs(), or remove it.")


def product_attrs(image: Image) -> dict[str, str]:
    """Return the header that is true for the pixels of a group, with its WCS, or the reason why it cannot be made."""
    # Distortions that are tables in other HDUs cannot follow; the pixels are right all the same.
    try:
        header = product_header(image.header, image.y, image.x, unit_to_text(image.units))
    except FrameError as error:
        return {"product_header": "", "product_header_error": str(error)}
    return {"product_header": signed(header_to_text(header))}


def root_attributes(images: Mapping[str, Image], layout: Any) -> dict[str, Any]:
    """Return the attributes of a store's root, still without the checksums of its inputs.

    Parameters
    ----------
    images
        The image of each group.
    layout
        What else decides the bytes of the store.
    """
    read = (source.storage for source in sources(*(image.plan for image in images.values())))
    inputs = {storage.place: plain(storage.identity) for storage in read}
    steps = {name: describe(image.plan) for name, image in images.items()}
    provenance = {"steps": steps, "inputs": inputs, "versions": versions()}
    content = hashlib.sha256(canonical(plain(layout))).hexdigest()
    return {"lazyccd": {"format_version": FORMAT_VERSION, "content": content, "provenance": provenance}}


def with_checksums(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a root with the checksums of its inputs and its write id, both equal for equal content.

    Raises
    ------
    SourceChangedError
        Raised if an input is not what it was.
    """
    ours = dict(attrs.get("lazyccd", {}))
    if "provenance" not in ours:
        return dict(attrs)
    provenance = dict(ours["provenance"])
    # Many inputs on a network disk are read side by side.
    with ThreadPoolExecutor(job_cpus()) as pool:
        records = pool.map(_record, provenance["inputs"], provenance["inputs"].values())
        inputs = dict(zip(provenance["inputs"], records, strict=True))
    provenance["inputs"] = list(inputs.values())
    provenance["steps"] = {
        group: [_without_folder(step, inputs) for step in steps] for group, steps in provenance["steps"].items()
    }
    ours["provenance"] = provenance
    ours["write_id"] = hashlib.sha256(canonical(ours)).hexdigest()[:32]
    return {**attrs, "lazyccd": ours}


def _record(path: str, state: Any) -> dict[str, Any]:
    """Return name, size and CRC32C of a file; of other inputs what tells their states apart."""
    # Without folders, so that equal work in another place gives equal bytes.
    name = os.path.basename(path.rstrip("/"))
    if not isinstance(state, dict) or state.get("etag") or not os.path.isfile(path):
        return {
            "name": name,
            "identity": state.get("etag") if isinstance(state, dict) else state,
        }
    identity = (state["size"], state["mtime_ns"], state["inode"])
    # The cached checksum may be of a state that is over.
    crc = _checksum(path, identity)
    _check_unchanged(path, identity)
    return {"name": name, "size": state["size"], "crc32c": f"{crc:08x}"}


@lru_cache(maxsize=1024)
def _checksum(path: str, identity: tuple[int, int, int]) -> int:
    """Return the CRC32C of a file in one state; masters that many products share are read once."""
    with open(path, "rb", buffering=0) as file:
        crc = checksum(iter(lambda: file.read(PIECE_BYTES), b""))
    _check_unchanged(path, identity)
    return crc


def _check_unchanged(path: str, identity: tuple[int, int, int]) -> None:
    """Refuse a file that is not in the state in which the plan saw it."""
    found = os.stat(path)
    if (found.st_size, found.st_mtime_ns, found.st_ino) != identity:
        raise SourceChangedError(f"{path} changed while it was read; open it again.")


def _without_folder(step: dict[str, Any], inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a step whose source is named without its folder."""
    source = step.get("source", "")
    path = max((path for path in inputs if source.startswith(path)), key=len, default="")
    return {**step, "source": inputs[path]["name"] + source[len(path) :]} if path else step

"""Say in a store how its image was made: steps, input files with their checksums, versions; no clock time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from lazyccd.errors import FrameError, SourceChangedError
from lazyccd.frame.core import Image
from lazyccd.frame.header import header_to_text
from lazyccd.frame.output_header import product_header
from lazyccd.frame.units import unit_to_text
from lazyccd.io.checksum import checksum
from lazyccd.io.resumable.progress import canonical, versions
from lazyccd.plan.limits import job_cpus
from lazyccd.plan.serialize import describe, plain, sources

FORMAT_VERSION = 1
"""Version of the layout of Zarr stores, docs/format.md."""

PIECE_BYTES = 1 << 20
"""Bytes of a file that are read at a time: they stay in the processor's cache for their checksum."""


def root_attributes(images: Mapping[str, Image], layout: Any) -> dict[str, Any]:
    """Return the attributes of a store's root, still without the checksums of its inputs.

    Parameters
    ----------
    images
        The image of each group.
    layout
        What else decides the bytes of the store.
    """
    inputs: dict[str, Any] = {}
    for image in images.values():
        for source in sources(image.plan):
            inputs[source.storage.place] = plain(source.storage.identity)
    steps = {name: describe(image.plan) for name, image in images.items()}
    provenance = {"steps": steps, "inputs": inputs, "versions": versions()}
    content = hashlib.sha256(canonical(plain(layout))).hexdigest()
    return {"lazyccd": {"format_version": FORMAT_VERSION, "content": content, "provenance": provenance}}


def product_attrs(image: Image) -> dict[str, str]:
    """Return the header that is true for the pixels of a group, with its WCS, or the reason why it cannot be made."""
    # Distortions that are tables in other HDUs cannot follow; the pixels are right all the same.
    try:
        header = product_header(image.header, image.y, image.x, unit_to_text(image.units))
    except FrameError as error:
        return {"product_header": "", "product_header_error": str(error)}
    return {"product_header": header_to_text(header)}


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

"""Multi-extension FITS files as trees of frames, and nothing of them lost.

1. The headers are read; every image that is no plane of another becomes a frame, named by its EXTNAME.
2. The primary header is that of the root. A frame's header has the cards of its extension and those of the primary that
   it lacks; sections, WCS and GAIN only with INHERIT = T, since those of the primary are about the whole mosaic.
3. The root's ``hdus`` says what each HDU of the file was: a plane of a frame, or bytes that stay where they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
from astropy import units as u

from lazyccd.errors import LazyCCDError, ParameterError, warn
from lazyccd.frame.core import DATA, MASK
from lazyccd.frame.tree import make_tree
from lazyccd.io.fits.dq import DQ
from lazyccd.io.fits.hdu_roles import (
    Companion,
    Companions,
    Role,
    check_roles,
    companion_files,
    companions_of,
    images_of,
)
from lazyccd.io.fits.open import Chunks, image_of, inherited_header
from lazyccd.io.fits.passthrough import KeptBytes
from lazyccd.io.fits.scan import FitsFile, HduInfo, scan_fits
from lazyccd.io.fits.storage import FitsStorage
from lazyccd.io.names import Name, parse_name
from lazyccd.plan.chunks import grid_boxes, regular_grid
from lazyccd.plan.job import job_cpus
from lazyccd.sections import Region

if TYPE_CHECKING:
    import xarray as xr

DEFAULT_NAME = "COMPRESSED_IMAGE"
"""EXTNAME that programs give to compressed images without a name."""

OnError = Literal["raise", "skip"]


def open_mef(
    path: Name,
    chunks: Chunks = "auto",
    dtype: npt.DTypeLike | None = None,
    unit: u.UnitBase | str | None = None,
    dq: DQ | None = None,
    *,
    roles: Mapping[str, Role] | None = None,
    on_error: OnError = "raise",
) -> xr.DataTree:
    """Open a FITS file with several images as a tree of lazy frames. Only headers are read.

    Parameters
    ----------
    path
        Local path or fsspec URL.
    chunks, dtype, unit, dq
        As in `open_fits`, for all frames; ``dq`` is for those with a mask.
    roles
        Roles of extensions by EXTNAME, if their names do not tell: ``"image"`` (a frame of its own), ``"std"``, ``"var"``,
        ``"ivar"`` or ``"mask"`` (a plane of the image before it), ``"kept"`` (copied, not reduced).
    on_error
        What to do about a damaged extension: ``"raise"`` an error, or ``"skip"`` it with a warning and a reason in the root's
        ``skipped``. Headers do not tell whether a compressed tile is damaged. With "raise" that is an error when its pixels are
        computed; with "skip" all tiles of the file are decompressed once here.

    Returns
    -------
    xr.DataTree
        The root has ``header``, the primary header. Each image is a child named by its EXTNAME (with EXTVER if names repeat;
        ``EXT3`` is the third without one; ``/`` becomes ``_``). Its ``uncertainty`` and ``mask`` come from extensions such as
        ERR and DQ of its version, UNCERT and MASK or VARIANCE and MASK behind it, or from files ``oow`` and ``ood`` beside a
        file ``ooi``. A cube of one plane is a frame. All other HDUs stay in the file, and `to_fits` and `to_zarr` copy them.

    Raises
    ------
    FormatError
        Raised if the file is no FITS file, or an extension is damaged.
    MissingFileError
        Raised if there is no such file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> amplifiers = [fits.ImageHDU(np.full((2, 3), i, np.uint16), name="SCI", ver=i) for i in (1, 2)]
    >>> with TemporaryDirectory() as folder:
    ...     fits.HDUList([fits.PrimaryHDU(), *amplifiers]).writeto(f"{folder}/a.fits")
    ...     tree = open_mef(f"{folder}/a.fits")
    ...     list(tree.children), float(tree["SCI_2"]["data"].max().compute())
    (['SCI_1', 'SCI_2'], 2.0)
    """
    if on_error not in {"raise", "skip"}:
        raise ParameterError(f"on_error {on_error!r} must be 'raise' or 'skip'.")
    name = parse_name(path)
    if name.hdu is not None:
        raise ParameterError(f"{path} names extension {name.hdu!r}, and open_mef() opens all; use open_fits().")
    # A file cut in transfer still has its first amplifiers; "skip" is for those.
    return tree_of(
        scan_fits(name.path, keep_going=on_error == "skip"), chunks, dtype, unit, dq, roles=roles, on_error=on_error
    )


def tree_of(
    file: FitsFile,
    chunks: Chunks = "auto",
    dtype: npt.DTypeLike | None = None,
    unit: u.UnitBase | str | None = None,
    dq: DQ | None = None,
    *,
    roles: Mapping[str, Role] | None = None,
    on_error: OnError = "raise",
) -> xr.DataTree:
    """Return the tree of a file whose headers were read; parameters as of `open_mef`."""
    known = check_roles(roles)
    planes = _planes(file, known)
    names = frame_names(images_of(file, known))
    skipped = [*(damage.reason for damage in file.damaged), *(hdu.damage for hdu in file.hdus if hdu.damage)]
    frames: dict[str, xr.Dataset] = {}
    for hdu, child in names:
        try:
            found = planes.get(hdu.index, {})
            frame = _frame(file, hdu, found, chunks, dtype, unit, dq)
            if on_error == "skip":
                _check_tiles([Companion(file, hdu), *found.values()])
            frames[child] = frame
        except LazyCCDError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
    # One damaged mask can be reported by its HDU and by its image.
    skipped = list(dict.fromkeys(skipped))
    for text in skipped:
        warn(f"left out: {text}", UserWarning)
    attrs = _root(file, names, planes, frames)
    return make_tree(frames, attrs | ({"skipped": skipped} if skipped else {}))


def root_attributes(path: Name, frames: Collection[str]) -> dict[str, Any]:
    """Return the attributes of the root of a tree that has only some frames of a file; other HDUs may be damaged."""
    file = scan_fits(path, keep_going=True)
    return _root(file, frame_names(images_of(file, {})), _planes(file, {}), frames)


def _root(
    file: FitsFile, names: Iterable[tuple[HduInfo, str]], planes: Companions, frames: Collection[str]
) -> dict[str, Any]:
    """Return the primary header, and what each HDU is, without frames that are left out and what is damaged."""
    hdus = _hdus(file, {hdu.index: child for hdu, child in names}, planes)
    return {"header": file.hdus[0].header, "hdus": [hdu for hdu in hdus if hdu.get("frame", "") in {"", *frames}]}


def damage_of(file: FitsFile, hdu: HduInfo) -> str:
    """Return why an image or one of its planes cannot be read, or an empty text. All their tiles are decompressed."""
    images = [Companion(file, hdu), *_planes(file, {}).get(hdu.index, {}).values()]
    try:
        _check_tiles(images)
    except LazyCCDError as error:
        return str(error)
    return ""


def _check_tiles(images: Iterable[Companion]) -> None:
    """Decompress all tiles of images, by as many threads as the job has; raise if one cannot be, or an image is cut."""
    with ThreadPoolExecutor(job_cpus(), "lazyccd-check") as pool:
        for image in images:
            # Only decompression finds damage: compressed tiles have no checksum of their own.
            storage = FitsStorage.of(image.file, image.hdu)
            if storage.tiles is None:
                continue
            grid = regular_grid(storage.shape, storage.chunks)
            for _ in pool.map(partial(_check_region, storage), grid_boxes(grid)):
                pass


def _check_region(storage: FitsStorage, region: Region) -> None:
    """Decompress the tiles of a region; raise if one cannot be."""
    # A reader for each task: one is not shared between threads.
    with storage.open() as reader:
        reader.read(region)


def _planes(file: FitsFile, roles: Mapping[str, Role]) -> Companions:
    """Return the planes of each image: those of the file, then those of files beside it."""
    planes = companions_of(file, roles)
    for index, found in companion_files(file).items():
        # Planes in the file itself win over those of companion files.
        planes[index] = found | planes.get(index, {})
    return planes


def frame_names(images: Sequence[HduInfo]) -> list[tuple[HduInfo, str]]:
    """Return the images with the names of their frames, which can be names of groups."""
    # EXT1 is not the number of the HDU, which planes that are written behind an image would change
    given = [re.sub(r"[/\\\x00]", "_", "" if hdu.name == DEFAULT_NAME else hdu.name).strip(". ") for hdu in images]
    safe = [name or f"EXT{i}" for i, name in enumerate(given, 1)]
    names: list[tuple[HduInfo, str]] = []
    taken: set[str] = set()
    for hdu, base in zip(images, safe, strict=True):
        name = f"{base}_{hdu.ver}" if safe.count(base) > 1 else base
        if name in taken:
            name = f"{base}_EXT{len(names) + 1}"
        taken.add(name)
        names.append((hdu, name))
    return names


def _frame(
    file: FitsFile,
    hdu: HduInfo,
    planes: Mapping[str, Companion],
    chunks: Chunks,
    dtype: npt.DTypeLike | None,
    unit: u.UnitBase | str | None,
    dq: DQ | None,
) -> xr.Dataset:
    """Return the frame of an image, with the header that it has by itself and what it inherits."""
    text, inherited = inherited_header(file, hdu)
    more: dict[str, Any] = {"inherited": inherited} if inherited else {}
    # `dq` is given once for all extensions, and amplifiers without a mask are no error.
    dq = dq if MASK in planes else None
    return image_of(file, hdu.index, chunks, dtype, unit, dq, planes, text).to_dataset().assign_attrs(more)


def _hdus(file: FitsFile, names: Mapping[int, str], planes: Companions) -> list[dict[str, Any]]:
    """Describe each HDU of the file by values that go into JSON."""
    owners = {
        found.hdu.index: (names[index], plane, found.hdu.header)
        for index, some in planes.items()
        for plane, found in some.items()
        if found.file is file and index in names
    }
    described: list[dict[str, Any]] = []
    for hdu in file.hdus:
        # Bytes that are damaged are not copied into products.
        if hdu.damage:
            continue
        if hdu.index in names:
            described.append({"frame": names[hdu.index], "plane": DATA})
        elif hdu.index in owners:
            frame, plane, header = owners[hdu.index]
            described.append({"frame": frame, "plane": plane, "header": header})
        elif hdu.index == 0 and hdu.kind == "none":
            described.append({"root": True})
        else:
            described.append(
                {"name": hdu.name, "version": hdu.ver, "kind": hdu.kind, "bytes": _kept(file, hdu).to_json()}
            )
    return described


def _kept(file: FitsFile, hdu: HduInfo) -> KeptBytes:
    """Return where an HDU is, header and data."""
    return KeptBytes(file.path, hdu.data_offset - hdu.offset + hdu.data_size, hdu.offset, file.identity)

"""Write frames and trees to FITS files: `to_fits`, and the regions in which it works.

Which HDUs a file has is decided in `mef_write`, their bytes are made in `writer`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lazyccd.errors import ParameterError
from lazyccd.frame.core import Image
from lazyccd.frame.kinds import is_tree
from lazyccd.io.fits.mef_write import file_layout
from lazyccd.io.fits.tile_table import DITHERS
from lazyccd.io.fits.tile_writer import COMPRESSIONS, tile_shape
from lazyccd.io.fits.writer import FitsFrame, FitsProduct, FitsTarget
from lazyccd.io.names import target_name
from lazyccd.io.resumable.write import Rules, check_steps, frames_to_write, resolve_frames, settled_images, write
from lazyccd.plan.chunks import (
    CHUNK_PIXELS,
    WIDEST_BAND,
    band_height,
    bands_of,
    cuts_of,
)
from lazyccd.plan.cost import first_fitting, task_cost
from lazyccd.plan.serialize import plain, sources
from lazyccd.sections import Region

if TYPE_CHECKING:
    import xarray as xr
    from dask.delayed import Delayed


def to_fits(
    ccd: xr.Dataset | xr.DataTree,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    compute: bool = True,
    *,
    compress: str | None = None,
    quantize: float | None = None,
    dither: str = "SUBTRACTIVE_DITHER_2",
    verify: bool = False,
    break_lock: bool = False,
) -> str | Delayed:
    """Write a frame or a tree to a FITS file, region by region. After an interruption the same call resumes the write.

    Parameters
    ----------
    ccd
        A frame, or a tree of frames.
    path
        Name of the file. It appears when the file is complete; until then there is ``<path>.part``.
    overwrite
        Replace a file of that name.
    compute
        Whether to write now. Otherwise return a lazy write, which a cluster finishes even if workers die. Computing it again
        keeps the file that it made.
    compress
        Compress tile by tile (FITS standard, section 10): ``RICE_1``, ``GZIP_2`` or ``HCOMPRESS_1``. No bit is lost: integers
        (MASK, DQ) are compressed as named, floats by ``GZIP_2``, the only one that keeps them. Tiles are rows
        (``HCOMPRESS_1``: 16 rows); in images wider than 8192 pixels they are parts of rows (512 x 512 pixels).
    quantize
        Round the floats of image and uncertainty to this many steps per standard deviation of their noise, which is measured
        in each tile, and compress them by the named algorithm too; 4 is usual. Masks and maps are never rounded. Tiles without
        noise keep every bit, and NaN stays NaN.
    dither
        How quantised values are rounded: ``SUBTRACTIVE_DITHER_2``, which keeps zeros, ``SUBTRACTIVE_DITHER_1`` or
        ``NO_DITHER``.
    verify
        Before an interrupted write is resumed, compare the checksums of all finished regions, and not only sizes.
    break_lock
        Write even though a lease says that another process is writing the same and that process may still run.

    Returns
    -------
    str or Delayed
        The path, or the lazy write that returns it. The primary HDU is the image; extensions are UNCERT, MASK (1 is bad) and
        DQ (all planes, named in its header). ``CCDData.read`` reads it, with ``hdu=1`` if it is compressed; ``funpack`` makes
        a plain file of that. A tree becomes an extension for each frame. Order, names, headers, planes and further HDUs
        (tables byte for byte) are those of the file that `open_mef` opened; a new uncertainty or mask follows its image as
        UNCERT or DQ.

    Raises
    ------
    TargetExistsError
        Raised if the file exists and ``overwrite`` is false.
    FrameError
        Raised if a tree has neither frames nor other HDUs, or there are variables or coordinates besides those of a frame.
    ParameterError
        Raised if the frame is made from the file that is to be written, or ``compress`` is unknown.
    ShapeError
        Raised if the image is too small for ``HCOMPRESS_1``, or is wider than 8192 pixels and ``quantize`` is given.
    WriteError
        Raised if there is no space. Nothing appears under the final name; finished regions are kept, and the same call resumes.
    ResumeError
        Raised if an interrupted write of this name had other inputs, settings or versions of the libraries, and ``overwrite``
        is false; the message says what changed.
    TargetBusyError
        Raised if another process is writing it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> ds = from_ccddata(CCDData(np.ones((3, 4)), unit="adu"))
    >>> with TemporaryDirectory() as folder:
    ...     CCDData.read(to_fits(ds, f"{folder}/a.fits")).unit
    Unit("adu")
    >>> noisy = from_ccddata(CCDData(np.random.default_rng(1).normal(500, 10, (99, 99)), unit="adu"))
    >>> with TemporaryDirectory() as folder:
    ...     packed = to_fits(noisy, f"{folder}/a.fits.fz", compress="RICE_1", quantize=4)
    ...     float(abs(noisy["data"].values - CCDData.read(packed, hdu=1).data).max()) < 10 / 4
    True
    """
    images = resolve_frames(frames_to_write(ccd), compute=compute)
    attrs = ccd.attrs if is_tree(ccd) else None
    rules = Rules(overwrite, verify, break_lock)
    return _write(images, attrs, path, rules, compress, quantize, dither, compute=compute)


def write_image(image: Image, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write an image as `to_fits` writes the frame that it is behind, now and uncompressed."""
    _write(settled_images({"": image}), None, path, Rules(overwrite))


def _write(
    images: Mapping[str, Image],
    attrs: Mapping[Any, Any] | None,
    path: str | os.PathLike[str],
    rules: Rules,
    compress: str | None = None,
    quantize: float | None = None,
    dither: str = "SUBTRACTIVE_DITHER_2",
    *,
    compute: bool = True,
) -> str | Delayed:
    """Write images, of a tree if there are attributes of its root."""
    name = os.path.abspath(target_name(path))
    _check_compression(compress, quantize, dither)
    _check_suffix(name, compress)
    layout = file_layout(images, attrs, compress, float(quantize or 0), dither)
    regions = {
        frame: regions_of(image, (1, 1) if compress is None else tile_shape(compress, image.shape))
        for frame, image in images.items()
    }
    file = FitsTarget(name, tuple(layout.hdus))
    parts = [FitsFrame(file, tuple(layout.planes[frame]), image.schema.bad_bits) for frame, image in images.items()]
    described = {
        "hdus": [{**plain(spec), "header": spec.header.split("\n")} for spec in layout.hdus],
        "band": [list(some[0]) for some in regions.values()],
    }
    product = FitsProduct(file, rules.overwrite, tuple(parts))
    copied = [spec.kept.path for spec in layout.hdus if spec.kept is not None and spec.kept.path]
    return write(images, regions, product, described, rules, compute=compute, copied=copied)


def regions_of(image: Image, tile: tuple[int, int]) -> Sequence[Region]:
    """Return the regions in which an image is written to FITS: of whole tiles, about as large as its largest chunk.

    Whole rows lie one behind the other in a file. But a band of a wide image has few, and may need many more of its inputs:
    margins, or chunks of arrays and stores that are higher. Regions are smaller where the memory limit is too low for these.
    """
    nx = image.shape[1]
    largest = (max(image.grid[0]), max(image.grid[1]))
    # Whole tiles, and no more than a task may hold.
    rows = band_height(nx, min(CHUNK_PIXELS, largest[0] * largest[1]), tile[0])
    bands = _fitting_bands(image, rows, tile[0])
    if nx <= WIDEST_BAND:
        return bands
    squares = first_fitting(image.plan, cuts_of(image.grid, tile))
    # A band touches every chunk of its rows, and each would be decoded again for the next band.
    is_coarse = bool(image.plan.arrays) or any(source.storage.rows > rows for source in sources(image.plan))
    if is_coarse or rows * nx > 2 * max(box.size for box in squares):
        return squares
    # a little more to read is made up for by the long runs in both files
    return bands if _bytes_per_pixel(image, bands) <= 1.1 * _bytes_per_pixel(image, squares) else squares


def _fitting_bands(image: Image, rows: int, tile_rows: int) -> Sequence[Region]:
    """Return the bands of so many rows, or lower ones of whole tiles if the memory limit asks for them."""
    heights = dict.fromkeys(max(rows // cuts // tile_rows, 1) * tile_rows for cuts in (1, 2, 4, 8, 16))
    return first_fitting(image.plan, (bands_of(image.shape, height) for height in heights))


def _bytes_per_pixel(image: Image, regions: Sequence[Region]) -> float:
    """Return how many bytes are read for each pixel of a region in the middle."""
    region = regions[len(regions) // 2]
    return task_cost(image.plan, region, list(image.plan.dtypes)).read_bytes / region.size


def _check_suffix(name: str, compress: str | None) -> None:
    """Refuse a name that says something else than what is written."""
    # Programs take such a file for compressed because of its name.
    if name.endswith(".fz") and compress is None:
        raise ParameterError(f"{name} names a tile-compressed file; pass compress='RICE_1', or omit the suffix.")
    if name.endswith((".gz", ".bz2")):
        raise ParameterError(
            f"{name} names a file compressed as a whole, which cannot be written by region; omit the suffix, or "
            "pass compress='GZIP_2'."
        )


def _check_compression(compress: str | None, quantize: float | None, dither: str) -> None:
    """Check the arguments of compression.

    Raises
    ------
    ParameterError
        Raised if a name is unknown, or quantisation is asked for without compression or without steps.
    """
    if compress is not None and compress not in COMPRESSIONS:
        raise ParameterError(f"compress={compress!r} must be one of {', '.join(COMPRESSIONS)}, or None.")
    if quantize is not None and compress is None:
        raise ParameterError(f"quantize={quantize!r} needs compression; pass compress='RICE_1' too.")
    check_steps(quantize)
    names = [name for name in DITHERS if name != "NONE"]
    if dither not in names:
        raise ParameterError(f"dither={dither!r} must be one of {', '.join(names)}.")

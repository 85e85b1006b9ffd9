"""Make a FITS image the random access storage that plans read: which HDU, which chunk shape, which reader."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lazyccd.errors import FormatError
from lazyccd.io.fits.byte_source import Identity, open_source
from lazyccd.io.fits.pixels import PixelFormat
from lazyccd.io.fits.plain_reader import PlainReader
from lazyccd.io.fits.scan import FitsFile, HduInfo
from lazyccd.io.fits.tile_table import TileTable
from lazyccd.io.names import Selector, parse_selector
from lazyccd.kernels.block import MAPS
from lazyccd.plan.chunks import storage_chunk

if TYPE_CHECKING:
    from lazyccd.io.fits.tile_reader import TileReader

logger = logging.getLogger(__name__)

COMPANIONS = frozenset(
    ("UNCERT", "UNCERTAINTY", "ERR", "ERROR", "STD", "SIGMA", "VAR", "VARIANCE", "IVAR", "WHT", "WEIGHT")
) | frozenset(("MASK", "DQ", "BPM", "FLAGS", *(name.upper() for name in MAPS)))
"""Names of extensions that accompany an image; none of them is meant when no extension is named."""

AUXILIARY = frozenset({"SAMP", "TIME", "CTX", "CON", "D2IMARR", "WCSDVARR"})
"""Names of images that say how another was made, or where its pixels lie, and are not reduced."""


def find_hdu(file: FitsFile, selector: Selector | None = None) -> HduInfo:
    """Return the image that a selector picks.

    Parameters
    ----------
    file
        What `scan_fits` returned.
    selector
        Number (0 is the primary), EXTNAME in any case, ``(EXTNAME, EXTVER)`` or ``"SCI,2"``. None stands for the only
        image of the file, not counting companions such as MASK and UNCERT.

    Raises
    ------
    FormatError
        Raised if there is no such image, or more than one.
    """
    if selector is None:
        return _only_image(file)
    found = hdus_called(file, selector)
    if len(found) > 1:
        labels = ", ".join(f"{hdu.index} ({hdu.name},{hdu.ver})" for hdu in found)
        raise FormatError(f"{file.path} has {len(found)} extensions {selector!r}: {labels}; choose one by number.")
    if found[0].kind != "image":
        raise FormatError(f"{file.path}{found[0].label} is no image ({found[0].kind}); the file has\n{file}")
    return found[0]


def hdus_called(file: FitsFile, selector: Selector) -> list[HduInfo]:
    """Return the HDUs that a selector may mean, of several kinds of one name the images; an error if there is none."""
    if isinstance(selector, str):
        selector = parse_selector(selector)
    if isinstance(selector, int):
        found = [hdu for hdu in file.hdus if hdu.index == selector]
    elif isinstance(selector, str):
        found = [hdu for hdu in file.hdus if hdu.name.upper() == selector.upper()]
        found = [hdu for hdu in found if hdu.kind == "image"] or found
    else:
        found = [hdu for hdu in file.hdus if (hdu.name.upper(), hdu.ver) == (selector[0].upper(), selector[1])]
    if not found:
        raise FormatError(f"{file.path} has no extension {selector!r}; it has\n{file}")
    return found


def _only_image(file: FitsFile) -> HduInfo:
    """Return the one image that a file is about."""
    images = [hdu for hdu in file.hdus if hdu.kind == "image"]
    if not images:
        raise FormatError(f"{file.path} has no image; it has\n{file}")
    # Spectra and cubes beside the one image do not make it ambiguous.
    planes = [hdu for hdu in images if hdu.is_plane] or images
    # SCI, ERR, DQ of HST are one image for the user.
    main = [hdu for hdu in planes if hdu.name.upper() not in COMPANIONS | AUXILIARY] or planes
    if len(main) > 1:
        raise FormatError(
            f"{file.path} has {len(main)} images, and nothing says which; name one of them, such as "
            f"{file.path}{main[0].label}, or read them all with open_mef. The file has\n{file}"
        )
    return main[0]


@dataclass(frozen=True)
class FitsStorage:
    """One image of a FITS file as a plan holds it: a description without an open file and without pixels.

    Make it by `FitsStorage.of`.
    """

    path: str
    """Absolute path, or URL."""

    identity: Identity
    """What the file was when its headers were read."""

    hdu: str
    """Extension as written behind the file name."""

    shape: tuple[int, int]
    """Rows and columns."""

    dtype: np.dtype[Any]
    """Type in memory."""

    chunks: tuple[int, int]
    """Chunk shape that suits the file."""

    pixels: PixelFormat
    """What the stored numbers mean."""

    data_offset: int
    """Where the pixels start, or the table of tiles."""

    tiles: TileTable | None
    """Tiles of a compressed image."""

    @classmethod
    def of(cls, file: FitsFile, hdu: HduInfo, dtype: npt.DTypeLike | None = None) -> FitsStorage:
        """Describe an image of a file.

        Parameters
        ----------
        file, hdu
            What `scan_fits` and `find_hdu` returned.
        dtype
            Type in memory. By default float32 for integers of 16 bits and less, float64 for longer ones, and the
            file's own for floats. An integer type (for masks) is read exactly; BLANK is then an integer like any other.

        Raises
        ------
        FormatError
            Raised if the HDU is not an image of two axes, or of more of which only two are longer than 1, or is damaged.
        ParameterError
            Raised if the numbers cannot be of ``dtype``.
        """
        name = f"{file.path}{hdu.label}"
        if hdu.damage:
            raise FormatError(hdu.damage)
        shape = _check_plane(hdu, name)
        pixels = PixelFormat(hdu.bitpix, hdu.bscale, hdu.bzero, hdu.blank)
        return cls(
            path=file.path,
            identity=file.identity,
            hdu=hdu.label,
            shape=shape,
            dtype=pixels.resolve_dtype(dtype, name),
            chunks=storage_chunk(shape, hdu.tiles.shape if hdu.tiles else (1, 1), is_packed=bool(file.encoding)),
            pixels=pixels,
            data_offset=hdu.data_offset,
            tiles=hdu.tiles,
        )

    @property
    def name(self) -> str:
        """File and extension, for messages."""
        return f"{self.path}{self.hdu}"

    @property
    def place(self) -> str:
        """The file."""
        return self.path

    @property
    def token(self) -> str:
        """Deterministic identity of what is read: the file, its state, the HDU, the coding and the dtype."""
        parts = (self.path, self.identity, self.hdu, self.shape, self.dtype.str, self.pixels, self.data_offset)
        # dask shares work by this token: equal files in another state must differ, and no clock may enter.
        return hashlib.sha256(repr((parts, self.tiles)).encode()).hexdigest()[:32]

    @property
    def rows(self) -> int:
        """How many rows are decoded together: those of a tile."""
        return 1 if self.tiles is None else self.tiles.shape[0]

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of a tile: compressed, expanded and decoded; of a batch, if several are decoded together."""
        if self.tiles is None:
            return 0
        from lazyccd.io.fits.tile_reader import BATCH_PIXELS

        pixels = max(math.prod(self.tiles.shape), BATCH_PIXELS)
        return pixels * (2 * max(4, abs(self.pixels.bitpix) // 8) + self.dtype.itemsize)

    def open(self) -> PlainReader | TileReader:
        """Open the file and return a reader.

        Raises
        ------
        SourceChangedError
            Raised if the file is not the one whose headers were read.
        """
        # The identity is compared here, in the task: a file that changed must not be read as what it was.
        source = open_source(self.path, self.identity).source
        if self.tiles is None:
            return PlainReader(source, self.shape, self.dtype, self.name, pixels=self.pixels, offset=self.data_offset)
        from lazyccd.io.fits.tile_reader import TileReader

        return TileReader(
            source,
            self.shape,
            self.dtype,
            self.name,
            pixels=self.pixels,
            table_offset=self.data_offset,
            tiles=self.tiles,
        )


def _check_plane(hdu: HduInfo, name: str) -> tuple[int, int]:
    """Return the shape of an image of two axes; refuse others."""
    if hdu.kind != "image":
        raise FormatError(f"{name} is no image ({hdu.kind}); name an image extension.")
    if not hdu.is_plane:
        advice = (
            "write its planes as images of their own first, for example with astropy.io.fits"
            if len(hdu.plane_shape) > 2
            else "rows of pixels such as spectra are not read here"
        )
        raise FormatError(f"{name} has NAXIS = {len(hdu.shape)}, shape {hdu.shape}, and must have two axes; {advice}.")
    if len(hdu.shape) > 2:
        logger.info("%s has shape %s; read as an image of shape %s.", name, hdu.shape, hdu.plane_shape)
    return hdu.plane_shape[0], hdu.plane_shape[1]

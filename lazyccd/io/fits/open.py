"""Open FITS images as lazy frames: `open_fits` for one image, `open_many` for one of each of many files.

A frame is a plan of `Source` steps over `FitsStorage`; pixels are read by the tasks that need them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from astropy import units as u

from lazyccd.errors import LazyCCDError, ParameterError, UnitError, warn
from lazyccd.frame.convert import to_variance
from lazyccd.frame.core import MASK, UNCERTAINTY, Image, UncertaintyType, make_image
from lazyccd.frame.header import inherit, merge_headers
from lazyccd.frame.units import parse_unit
from lazyccd.io.fits.attribute_table import EXTNAME, table_attribute
from lazyccd.io.fits.dq import DQ, read_planes
from lazyccd.io.fits.hdu_roles import Companion, companions_of, images_of
from lazyccd.io.fits.header_cache import scan_many
from lazyccd.io.fits.scan import Cards, FitsFile, HduInfo, scan_fits
from lazyccd.io.fits.storage import FitsStorage, find_hdu
from lazyccd.io.names import InputName, Name, Selector, expand_names, parse_name
from lazyccd.kernels import pointwise
from lazyccd.kernels.block import APERTURE, MAPS
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.chunks import asked_grid, regular_grid
from lazyccd.plan.steps import Apply, Input, Source, Step, make_dtypes, make_params

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger(__name__)

Chunks: TypeAlias = int | tuple[int, int] | Literal["auto"]


def open_fits(
    path: Name,
    hdu: Selector | None = None,
    chunks: Chunks = "auto",
    dtype: npt.DTypeLike | None = None,
    unit: u.UnitBase | str | None = None,
    dq: DQ | None = None,
) -> xr.Dataset:
    """Open an image of a FITS file as a lazy frame. Only headers are read.

    Parameters
    ----------
    path
        Local path or fsspec URL, such as ``night/a.fits``, ``a.fits[SCI,2]``, ``s3://bucket/a.fits.fz``.
    hdu
        Number, name or (name, version) of the extension. Not needed if the file has one image.
    chunks
        Chunk shape, one number for both axes, or "auto" for about four million pixels along the layout of the file.
    dtype
        float32 or float64. By default float32 for integers of up to 16 bits and for float32, otherwise float64.
    unit
        Units of the data. By default those of BUNIT.
    dq
        Meaning of the integers of a data quality extension, if its header does not tell: a dialect (``"hst-stis"``,
        ``"hst-acs"``, ``"hst-wfc3"``, ``"hst-nicmos"``, ``"jwst"``, ``"noirlab"``, ``"des"``, ``"dragons"``,
        ``"banzai"``), bits by name such as ``{"SAT": 4}``, or ``"boolean"`` if every value but 0 is bad.

    Returns
    -------
    xr.Dataset
        ``data``; ``uncertainty`` if an extension UNCERT, ERR, VAR, ... has the same shape and version; ``mask`` if there is an
        extension DQ, MASK or BPM, if BLANK is set, or if the image is floating-point. Pixels that are not finite get the plane
        ``NO_DATA``. Planes are matched by name, whatever their bits or codes in the file; an integer that no plane
        stands for raises an error when it is read.

    Raises
    ------
    FormatError
        Raised if the file is damaged or no FITS file, if it has no such image or several and ``hdu`` does not say which, or
        if nothing tells what the integers of a DQ extension mean.
    MissingFileError
        Raised if the file does not exist.
    UnitError
        Raised if ``unit`` is unknown. An unknown BUNIT is a warning, and the image is dimensionless.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> with TemporaryDirectory() as folder:
    ...     fits.writeto(f"{folder}/a.fits", np.arange(6, dtype=np.uint16).reshape(2, 3))
    ...     ds = open_fits(f"{folder}/a.fits")
    ...     ds["data"].dtype, ds["data"].attrs["units"], float(ds["data"].sum().compute())
    (dtype('float32'), 'adu', 15.0)
    """
    name = parse_name(path)
    if name.hdu is not None and hdu is not None and name.hdu != hdu:
        raise ParameterError(f"{path} names extension {name.hdu!r} and hdu= is {hdu!r}; give one of them.")
    selector = hdu if hdu is not None else name.hdu
    return image_of(scan_fits(name.path), selector, chunks, dtype, unit, dq).to_dataset()


def open_many(
    paths: Name | Iterable[Name],
    chunks: Chunks = "auto",
    dtype: npt.DTypeLike | None = None,
    unit: u.UnitBase | str | None = None,
    dq: DQ | None = None,
) -> list[xr.Dataset]:
    """Open many files at once, their headers in parallel or from the cache of headers; see `open_fits`.

    Parameters
    ----------
    paths
        Paths, globs and ``@lists``, each perhaps with ``[SCI,2]`` behind it; or a `Collection`.
    chunks, dtype, unit, dq
        As in `open_fits`.

    Returns
    -------
    list of xr.Dataset
        In the order of the names; matches of a glob sorted.
    """
    return [image.to_dataset() for image in open_images(expand_names(paths), chunks, dtype, unit, dq)]


def open_images(
    names: Sequence[InputName],
    chunks: Chunks = "auto",
    dtype: npt.DTypeLike | None = None,
    unit: u.UnitBase | str | None = None,
    dq: DQ | None = None,
) -> list[Image]:
    """Return the images behind the frames of `open_many`, for operations that need no frames."""

    def opened(name: InputName, file: FitsFile | LazyCCDError) -> Image:
        if isinstance(file, LazyCCDError):
            raise file
        return image_of(file, name.hdu, chunks, dtype, unit, dq)

    return [opened(*each) for each in zip(names, scan_many(name.path for name in names), strict=True)]


def image_of(
    file: FitsFile,
    selector: Selector | None,
    chunks: Chunks,
    dtype: npt.DTypeLike | None,
    unit: u.UnitBase | str | None,
    dq: DQ | None = None,
    companions: Mapping[str, Companion] | None = None,
    header: str | None = None,
) -> Image:
    """Return one image of a file whose headers were read, with given companions and header or its own."""
    info = find_hdu(file, selector)
    found = companions_of(file).get(info.index, {}) if companions is None else companions
    # Only float32 and float64: in uint16, 60000 - 61000 is 64536, and squares of uncertainties overflow sooner still.
    storage = FitsStorage.of(file, info, _check_dtype(dtype, file, info))
    text = header or _header(file, info)
    data = Source.of(storage)
    variance, kind = _uncertainty(found, storage.dtype)
    mask, schema = _mask(found.get(MASK), file, info, data, dq)
    tables = table_attribute(file) if any(hdu.name == EXTNAME for hdu in file.hdus) else {}
    return make_image(
        data,
        units=_units(file, info, text, unit),
        grid=regular_grid(storage.shape, storage.chunks) if chunks == "auto" else asked_grid(storage.shape, chunks),
        variance=variance,
        mask=mask,
        maps=_maps(found, storage.dtype),
        header=text,
        schema=schema,
        uncertainty_type=kind,
        attrs={**tables, **({"squeezed": squeezed_axes(info.shape)} if len(info.shape) > 2 else {})},
    )


def squeezed_axes(shape: tuple[int, ...]) -> list[int]:
    """Return the numbers of the FITS axes of length 1 that a plane does not have.

    Examples
    --------
    >>> squeezed_axes((1, 1024, 1040)), squeezed_axes((7, 1, 5))
    ([3], [2])
    """
    axes: list[int] = []
    left = list(shape)
    while len(left) > 2:
        place = left.index(1)
        axes.append(len(shape) - (place + len(axes)))
        del left[place]
    return sorted(axes)


def _header(file: FitsFile, info: HduInfo) -> str:
    """Return the header of an image: with all cards of the primary that it lacks if it is the only one of its file."""
    if not info.index:
        return info.header
    # With several images the primary describes all of them; with one it describes that image.
    if len(images_of(file)) > 1:
        return inherited_header(file, info).text
    return merge_headers(info.header, file.hdus[0].header)


class InheritedHeader(NamedTuple):
    """The header of an extension, with cards of the primary."""

    text: str
    keywords: str
    """Keywords of the inherited cards, divided by blanks."""


def inherited_header(file: FitsFile, info: HduInfo) -> InheritedHeader:
    """Return the header of one of several images with the cards that it inherits from the primary."""
    if not info.index:
        return InheritedHeader(info.header, "")
    where = f"{file.path}{info.label}"
    # Splitting thousands of cards costs more than looking for the word first.
    stated = "\nINHERIT" in info.header and Cards(info.header.replace("\n", ""), where).get("INHERIT") is True
    return InheritedHeader(*inherit(info.header, file.hdus[0].header, whole=stated))


def _check_dtype(dtype: npt.DTypeLike | None, file: FitsFile, info: HduInfo) -> np.dtype[Any] | None:
    """Return the dtype of the data, which must be one that operations work on."""
    if dtype is None or np.dtype(dtype) in (np.dtype(np.float32), np.dtype(np.float64)):
        return None if dtype is None else np.dtype(dtype)
    raise ParameterError(f"{file.path}{info.label}: dtype {np.dtype(dtype)} must be float32 or float64.")


def _units(file: FitsFile, info: HduInfo, text: str, unit: u.UnitBase | str | None) -> u.UnitBase:
    """Return the units of an image: as given, of BUNIT, or adu for integers without one."""
    where = f"{file.path}{info.label}"
    if unit is not None:
        return parse_unit(unit, where)
    given = Cards(text.replace("\n", ""), where).get("BUNIT")
    # A BUNIT with nothing in it says as little as none.
    if given is not None and str(given).strip():
        try:
            return parse_unit(str(given), where)
        except UnitError:
            # A misspelt unit must not keep a night from being read, unlike one that the user gives.
            warn(
                f"{where}: BUNIT = {str(given)!r} is not known; taken as dimensionless, give unit= to open_fits().",
                UserWarning,
            )
            return u.dimensionless_unscaled
    # Raw frames seldom have BUNIT, and integers are what converters count.
    if info.bitpix > 0:
        logger.info("%s has no BUNIT and integer pixels; its units are taken as adu.", where)
        return u.adu
    return u.dimensionless_unscaled


def _uncertainty(found: Mapping[str, Companion], dtype: np.dtype[Any]) -> tuple[Step | None, UncertaintyType]:
    """Return the variance that there is beside an image, and as what it is stored."""
    companion = found.get(UNCERTAINTY)
    if companion is None:
        return None, "std"
    source = Source.of(FitsStorage.of(companion.file, companion.hdu, dtype))
    return to_variance(source, companion.kind), companion.kind


def _maps(found: Mapping[str, Companion], dtype: np.dtype[Any]) -> dict[str, Step]:
    """Return the maps of a stack or mosaic that there are beside an image."""
    kinds = {name: np.dtype(kind) for name, kind in MAPS.items()} | {APERTURE: dtype}
    return {
        name: Source.of(FitsStorage.of(found[name].file, found[name].hdu, kinds[name]))
        for name in MAPS
        if name in found
    }


def _mask(
    companion: Companion | None, file: FitsFile, info: HduInfo, data: Step, dq: DQ | None
) -> tuple[Step | None, MaskSchema]:
    """Return the mask that there is beside an image, with NO_DATA where the image is not finite."""
    schema = MaskSchema()
    given: Step | None = None
    if companion is not None:
        given, schema = read_planes(companion.file, companion.hdu, dq)
    elif dq is not None:
        raise ParameterError(
            f"{file.path}{info.label}: dq={dq!r} was given and there is no DQ, MASK or BPM beside the image."
        )
    # Integers without BLANK have a value in every pixel (section 5.3 gives NaN to floats only): no mask is needed.
    elif info.bitpix > 0 and info.blank is None:
        return None, schema
    # NaN would spread through every later step; marked NO_DATA they are left out.
    sources = (Input(data),) if given is None else (Input(data), Input(given))
    kernel = pointwise.flag_nonfinite_alone if given is None else pointwise.flag_nonfinite
    params = make_params(no_data=schema.bits("NO_DATA"), mask_dtype=schema.dtype.name)
    return Apply(data.shape, make_dtypes(data=schema.dtype), kernel=kernel, sources=sources, params=params), schema

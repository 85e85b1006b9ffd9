"""Find and replace cosmic rays by LA Cosmic, with the bits of astroscrappy for any chunks.

The method needs two numbers of the whole image only for pixels with no good neighbour. So chunks are computed independently,
with a halo as wide as its iterations reach, and those numbers are exact global ones.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, ParameterError, UnitError, warn
from lazyccd.frame.core import DATA, Image, as_step, float_dtype, resolve
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.nddata import is_nddata
from lazyccd.frame.units import conversion_factor
from lazyccd.kernels import quantiles
from lazyccd.kernels.block import PLANES
from lazyccd.kernels.cosmic_rays import block as kernels
from lazyccd.kernels.cosmic_rays.lacosmic import SCRATCH_BYTES, LACosmic
from lazyccd.kernels.cosmic_rays.replace import CLEAN_TYPES
from lazyccd.ops.arguments import Pixels, check_positive, normalize_integer, normalize_number, normalize_pixels
from lazyccd.ops.decorator import called_with_ccddata, operation
from lazyccd.plan.chunks import CHUNK_PIXELS
from lazyccd.plan.cost import fits_alone
from lazyccd.plan.footprints import Footprint, Halo, PlaneMap, Whole
from lazyccd.plan.lower import Graph
from lazyccd.plan.steps import Apply, Input, Reduction, Scalar, Step, make_dtypes, make_params
from lazyccd.sections import Region

if TYPE_CHECKING:
    from astropy.nddata import CCDData

Extra: TypeAlias = "Pixels | u.Quantity | CCDData"
"""An image besides the frame, such as its background: with units, or in those of the frame."""

Background: TypeAlias = Literal["image"] | tuple[float, float] | None

RAYS: PlaneMap = (("data", ("data", "mask")), ("variance", PLANES), ("mask", ("data", "mask")))
"""Cosmic rays are found with data and mask; the variance is made besides."""

RAYS_BY_VARIANCE: PlaneMap = tuple((plane, PLANES) for plane in PLANES)
"""As `RAYS`, where the frame's variance says what is noise."""

PSF_MODELS = ("gauss", "gaussx", "gaussy", "moffat")

MOST_ON_DEMAND = 2**26
"""Pixels of an image up to which the level of the background is measured by a task that needs it, if one does: in a second."""

SATURATED = 65535.0
"""Saturation level of ccdproc and astroscrappy, in electrons."""


@operation(arrays=("data", "mask"))
def cosmicray_lacosmic(
    ccd: xr.Dataset,
    sigclip: float = 4.5,
    sigfrac: float = 0.3,
    objlim: float = 5.0,
    gain: float | u.Quantity | Keyword | str = 1.0,
    readnoise: float | u.Quantity | Keyword | str = 6.5,
    satlevel: float | u.Quantity | Keyword | str | None = None,
    pssl: float = 0.0,
    niter: int = 4,
    sepmed: bool = True,
    cleantype: str = "meanmask",
    fsmode: str = "median",
    psfmodel: str = "gauss",
    psffwhm: float = 2.5,
    psfsize: int = 7,
    psfk: npt.NDArray[Any] | None = None,
    psfbeta: float = 4.765,
    verbose: bool = False,
    gain_apply: bool = True,
    inbkg: Extra | None = None,
    invar: Extra | None = None,
    *,
    use_uncertainty: bool = False,
    background: Background = "image",
    engine: Literal["lazyccd", "astroscrappy"] = "lazyccd",
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    r"""Find cosmic rays by LA Cosmic, flag them and replace them.

    Parameters
    ----------
    ccd
        A frame of one detector, or a CCDData (then a computed CCDData is returned), or an array (then the computed data and
        a boolean mask are).
    sigclip
        A pixel is a cosmic ray if its Laplacian is above so many times its noise.
    sigfrac
        Neighbours of cosmic rays are, above this fraction of ``sigclip``.
    objlim
        Least contrast between the Laplacian and the fine structure; higher for undersampled stars.
    gain
        Electrons per unit of the data; a number is in electron/adu. As read noise and saturation it may be a keyword of the
        header, such as ``"GAIN"``.
    readnoise
        Noise of a pixel without signal; a number is in electrons.
    satlevel
        Electrons, or a quantity in the units of the data, above which a star is saturated, and not looked at. If None, frames
        with a mask have their plane ``SAT`` instead, grown by four pixels; others, and CCDData, 65535.
    pssl
        A sky level that was subtracted; of no use together with ``inbkg`` or ``invar``.
    niter
        Most iterations.
    sepmed
        Use separable medians, faster and a little less exact.
    cleantype
        What replaces a cosmic ray: the ``meanmask`` or ``medmask`` of the good pixels within 2, their mean weighted by one
        over the distance (``idw``), or the ``median`` of all 25 pixels of the original image.
    fsmode
        Fine structure from a ``median``, or from a convolution with the PSF (``convolve``).
    psfmodel, psffwhm, psfsize, psfbeta
        The PSF for ``convolve``: ``gauss``, ``moffat``, ``gaussx``, ``gaussy``; full width at half maximum and odd size in
        pixels; power of the Moffat profile.
    psfk
        The PSF itself, float, of odd sizes, with a sum above 0; used as it is, not reversed.
    verbose
        Passed on to astroscrappy if that is the engine; lazy frames are computed silently.
    gain_apply
        Return data, uncertainty and units multiplied by the gain.
    inbkg
        A background that was subtracted: array of the image's shape, in the units of the data if it has none. Pixels where
        it is NaN are bad.
    invar
        Variance of the image, in the units of the data squared, instead of that from gain and read noise; as ``inbkg``.
    use_uncertainty
        Take the frame's own uncertainty as ``invar``.
    background
        What replaces a cosmic ray whose 5 x 5 box has no good pixel: ``"image"``, the exact lower median of all good pixels,
        found in two passes over the image, which are made only where there is such a pixel unless the image is very large or
        made of dask arrays; a pair of numbers, level and variance in the units of the data; None leaves it flagged and not
        replaced.
    engine
        ``"astroscrappy"`` runs that library on each chunk, for comparison.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk. Always with a mask: cosmic rays have the planes ``CR`` and, where they were replaced,
        ``INTERP``; two pixels at the edge of the image are flagged only. Other pixels keep their bits, times the gain. The
        variance of a replaced pixel is the largest, or if that is more the scatter, of the good pixels within 2. Bad pixels
        are not looked at; NaN stays NaN, with ``NO_DATA``. The halo is ``10 niter + 1`` pixels with the default methods.

    Raises
    ------
    UnitError
        Raised if gain times data does not have the units of the read noise, or another argument has units that do not fit.
    ParameterError
        Raised if a word is unknown, a number negative or NaN, the PSF of even size, ``pssl`` given with ``inbkg`` or
        ``invar``, or ``cleantype="median"`` asked of astroscrappy.
    ArgumentTypeError
        Raised if the PSF is not an array of floats, or a number not one.
    ShapeError
        Raised if background or variance do not have the image's shape.

    Notes
    -----
    Of van Dokkum (2001), PASP 113, 1420, in the form of astroscrappy (McCully 2014): for any chunks, cosmic rays and
    replaced values are those of `astroscrappy.detect_cosmics` on the whole image, to the bit. Within 4 pixels of the edge
    of the image there is no fine structure, and sharp stars may be flagged as well as cosmic rays.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> pixels = np.random.default_rng(0).normal(100.0, 10.0, (64, 64))
    >>> pixels[30, 20:25] += 900.0
    >>> clean = cosmicray_lacosmic(CCDData(pixels, unit="electron"), readnoise=0.0)
    >>> bool(clean.mask[30, 20:25].all()), bool(clean.data[30, 22] < 150)
    (True, True)
    """
    image = resolve(ccd)
    factor, noise, units = _gain_and_noise(image, gain, readnoise)
    _check_words(cleantype, fsmode, psfmodel, engine)
    _check_extras(image, pssl, inbkg, invar, use_uncertainty=use_uncertainty)
    # after bias and flat no pixel has 65535 any more, so frames go by the plane SAT; CCDData has no planes
    by_plane = satlevel is None and image.has_mask and not called_with_ccddata()
    level = (np.inf if by_plane else SATURATED) if satlevel is None else _saturation(satlevel, image, factor, units)
    psf = _psf(fsmode, psfk, psfmodel, psffwhm, psfsize, psfbeta)
    limits = {"sigclip": sigclip, "sigfrac": sigfrac, "objlim": objlim}
    sigclip, sigfrac, objlim = (_number(value, name, least=0.0) for name, value in limits.items())
    count = normalize_integer(niter, "niter")
    settings = LACosmic(sigclip, sigfrac, objlim, factor, noise, level, count, bool(sepmed), cleantype, psf)
    library = _library_arguments(settings, fsmode, bool(verbose)) if engine == "astroscrappy" else None
    search = _Search(
        settings, library, _number(pssl, "pssl", image.units), by_plane, background, inbkg, invar, use_uncertainty
    )
    scale = factor if gain_apply else 1.0
    plan, graphs = search.plan(image, scale, whole=background == "image" and library is None and _is_small(image))
    graphs = (*image.graphs, *graphs)
    return replace(image, plan=plan, units=units if gain_apply else image.units, graphs=graphs).to_dataset()


class _Search(NamedTuple):
    """How cosmic rays are looked for."""

    settings: LACosmic
    library: tuple[tuple[str, Any], ...] | None
    offset: float
    by_plane: bool
    background: Background | None
    inbkg: Extra | None
    invar: Extra | None
    use_uncertainty: bool

    def plan(self, image: Image, scale: float, *, whole: bool) -> tuple[Step, tuple[Graph, ...]]:
        """Return the step, and the graphs of other images that it reads.

        Parameters
        ----------
        image
            The frame.
        scale
            Applied after the search, so that pixels not flagged keep their bits.
        whole
            Whether the kernel gets the whole image, and needs no passes before it, if the memory limit allows that. A large image
            must stay one that is cut. The pixels are the same.
        """
        schema, settings = image.schema, self.settings
        footprint: Footprint = Whole() if whole else Halo((settings.halo, settings.halo))
        sources, extras, graphs = _sources(image, footprint, self.inbkg, self.invar, own=self.use_uncertainty)
        shared: dict[str, Any] = {
            "extras": extras,
            "settings": settings,
            "bits": (schema.bad_bits, schema.bits("SAT") if self.by_plane else 0),
            "offset": self.offset,
        }
        has_levels = not whole and self.library is None
        plan = image.apply(
            kernels.lacosmic,
            sources,
            dict(image.plan.planes) | {"mask": schema.dtype},
            scalars=_levels(image, sources, self.background, settings.gain, shared) if has_levels else (),
            flags=(schema.bits("CR"), schema.bits("INTERP"), schema.bits("NO_DATA")),
            scale=scale,
            scratch_bytes=_scratch_bytes(image, settings, extras, offset=self.offset, whole=whole),
            whole=whole,
            library=self.library,
            mask_dtype=schema.dtype.name,
            **shared,
        )
        if whole and not fits_alone(plan, [Region.full(image.shape)]):
            return self.plan(image, scale, whole=False)
        return plan, graphs


def _is_small(image: Image) -> bool:
    """Return whether an image is one chunk and no larger than the default one, or in memory anyway."""
    single = len(image.grid[0]) == len(image.grid[1]) == 1
    return single and (math.prod(image.shape) <= CHUNK_PIXELS or called_with_ccddata())


def _gain_and_noise(
    image: Image, gain: float | u.Quantity, readnoise: float | u.Quantity
) -> tuple[float, float, u.UnitBase]:
    """Return gain and read noise as numbers, and the units of the data times the gain, by ccdproc's rules."""
    g = gain if isinstance(gain, u.Quantity) else _number(gain, "gain") * u.electron / u.adu
    noise = readnoise if isinstance(readnoise, u.Quantity) else _number(readnoise, "readnoise") * u.electron
    check_positive(g, "gain", image)
    check_positive(noise, "readnoise", image, zero=True)
    # ccdproc takes a bare gain to be in electron/adu; an image in electrons then has it applied already, and 1 has no unit
    if image.units.is_equivalent(u.electron):
        if g.value != 1:
            warn(f"the image is in electrons and the gain is {g}: it may be corrected twice; give gain=1.", UserWarning)
        elif noise.unit == u.electron:
            g = u.Quantity(1.0)
    if not (image.units.is_equivalent(u.electron) and g.value != 1) and not (g.unit * image.units).is_equivalent(
        noise.unit
    ):
        raise UnitError(
            f"gain unit '{g.unit}' times data unit '{image.units}' does not match readnoise unit '{noise.unit}'; give the "
            "gain in electron per unit of the data and the read noise in electron."
        )
    return float(g.value), float(noise.value), image.units * g.unit


def _scratch_bytes(image: Image, settings: LACosmic, extras: tuple[str, ...], *, offset: float, whole: bool) -> int:
    """Return how many bytes the search takes for each pixel."""
    pixel = image.dtype.itemsize
    # pixels that are not finite are filled in a copy, of the variance and of the background too
    found = SCRATCH_BYTES + pixel * (1 + bool(offset)) + 8 * len(extras)
    found += 8 if settings.cleantype == "median" else 0
    # image and variance once more, to find the levels
    return found + (9 if whole else 0)


def _saturation(level: float | u.Quantity, image: Image, gain: float, units: u.UnitBase) -> float:
    """Return a saturation level in electrons; a quantity may be in the units of the data, as that of a header is."""
    if isinstance(level, u.Quantity) and level.unit.is_equivalent(image.units):
        return _number(level, "satlevel", image.units) * gain
    return _number(level, "satlevel", units)


def _number(value: float | u.Quantity, name: str, unit: u.UnitBase | None = None, least: float = -np.inf) -> float:
    """Return a single number, a Quantity in the unit that is wanted."""
    if isinstance(value, u.Quantity) and unit is not None:
        value = value.value * conversion_factor(value.unit, unit, name)
    return normalize_number(value, name, least)


def _check_words(cleantype: str, fsmode: str, psfmodel: str, engine: str) -> None:
    """Refuse words that are not known, and what the library cannot do."""
    known = {
        "cleantype": (cleantype, tuple(CLEAN_TYPES)),
        "fsmode": (fsmode, ("median", "convolve")),
        "psfmodel": (psfmodel, PSF_MODELS),
        "engine": (engine, ("lazyccd", "astroscrappy")),
    }
    for name, (word, words) in known.items():
        if word not in words:
            raise ParameterError(f"{name} {word!r} must be one of {', '.join(words)}.")
    if engine == "astroscrappy" and cleantype == "median":
        raise ParameterError(
            "engine 'astroscrappy' cannot do cleantype 'median': it reads uninitialised memory; use engine 'lazyccd'."
        )


def _check_extras(image: Image, pssl: float, inbkg: object, invar: object, *, use_uncertainty: bool) -> None:
    """Refuse backgrounds and variances that contradict each other, or are not there."""
    # as ccdproc: a sky level says again what an image of the background or of the variance says already
    if np.any(pssl != 0) and (inbkg is not None or invar is not None):
        raise ParameterError("cosmicray_lacosmic() got pssl together with inbkg or invar; put it into inbkg.")
    if use_uncertainty and (invar is not None or not image.has_variance):
        raise ParameterError("use_uncertainty needs a frame with an uncertainty, and no invar; see create_deviation.")


def _psf(
    fsmode: str, given: npt.NDArray[Any] | None, model: str, fwhm: float, size: int, beta: float
) -> tuple[tuple[float, ...], ...] | None:
    """Return the kernel of the fine structure, None for medians; a user's kernel is checked in any case."""
    own = None if given is None else _given_psf(given)
    if fsmode != "convolve":
        return None
    return _model_psf(model, fwhm, size, beta) if own is None else own


def _given_psf(given: npt.ArrayLike) -> tuple[tuple[float, ...], ...]:
    """Return the user's kernel of the fine structure."""
    # astroscrappy reverses the kernels of its models, and not this one
    kernel = np.asarray(given)
    if kernel.dtype.kind != "f" or kernel.ndim != 2:
        raise ArgumentTypeError(f"psfk of dtype {kernel.dtype} and shape {kernel.shape} must be a 2-D array of floats.")
    if not all(length % 2 for length in kernel.shape):
        raise ParameterError(f"psfk of shape {kernel.shape} must have odd sizes; pad it with zeros.")
    if not 0 < kernel.sum() < np.inf:
        raise ParameterError(f"psfk adds up to {kernel.sum()} and must be finite, with a sum above 0.")
    return _as_tuples(kernel)


def _model_psf(model: str, fwhm: float, size: int, beta: float) -> tuple[tuple[float, ...], ...]:
    """Return a model's kernel of the fine structure, turned round as the convolution takes it."""
    numbers = {"psffwhm": _number(fwhm, "psffwhm"), "psfbeta": _number(beta, "psfbeta")}
    side = normalize_integer(size, "psfsize")
    if side % 2 == 0:
        raise ParameterError(f"psfsize {size} must be an odd number of pixels.")
    for name, number in numbers.items():
        if not number > 0:
            raise ParameterError(f"{name} {number:g} must be above 0.")
    # rounded to float32 first, as the library's arguments are: the kernel decides which pixels are flagged
    single = (float(np.float32(number)) for number in numbers.values())
    return _as_tuples(psf_kernel(model, next(single), side, next(single))[::-1, ::-1])


def psf_kernel(model: str, fwhm: float, size: int, beta: float) -> npt.NDArray[np.float32]:
    """Return a normalised PSF as astroscrappy makes it."""
    x = np.tile(np.arange(size) - size // 2, (size, 1))
    y = x.T.copy()  # in the order of memory in which the library adds up the kernel
    sigma2 = float(np.float32(fwhm) * np.float32(fwhm)) / 2.35482 / 2.35482
    if model == "moffat":
        alpha = fwhm / 2.0 / np.sqrt(np.power(2.0, 1.0 / beta) - 1.0)
        r = np.sqrt(x * x + y * y)
        kernel = np.power(1.0 + (r * r / alpha / alpha), -1.0 * beta)
    elif model == "gauss":
        kernel = np.exp(-0.5 * (x * x + y * y) / sigma2)
    else:
        along = x if model == "gaussx" else y
        kernel = np.exp(-0.5 * along * along / sigma2)
    single = kernel.astype(np.float32)
    return np.asarray(single / single.sum(), np.float32)


def _as_tuples(kernel: npt.NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in np.asarray(kernel, np.float32))


def _library_arguments(settings: LACosmic, fsmode: str, verbose: bool) -> tuple[tuple[str, Any], ...]:
    """Return the arguments of `astroscrappy.detect_cosmics`."""
    names = ("sigclip", "sigfrac", "objlim", "gain", "readnoise", "satlevel", "niter", "sepmed", "cleantype", "psfk")
    arguments = {name: getattr(settings, name) for name in names} | {"fsmode": fsmode, "verbose": verbose}
    return make_params(**arguments)


def _sources(
    image: Image, footprint: Footprint, inbkg: Extra | None, invar: Extra | None, *, own: bool
) -> tuple[tuple[Input, ...], tuple[str, ...], tuple[Graph, ...]]:
    """Return what the kernel reads, the names of what it reads besides the frame, and the graphs of that."""
    uses = RAYS_BY_VARIANCE if own else RAYS
    sources, extras = [Input(image.plan, footprint, uses)], []
    graphs: list[Graph] = []
    every: PlaneMap = tuple((plane, ("data",)) for plane in PLANES)
    # not in the frame's dtype: astroscrappy rounds to float32 after the product with the gain, and last bits follow from that
    for name, array, unit in (("background", inbkg, image.units), ("variance", invar, image.units**2)):
        if array is not None:
            pixels = normalize_pixels(_in_unit(array, unit, name), image, name)
            step, more = as_step(pixels, float_dtype(pixels.dtype), name)
            sources.append(Input(step, footprint, every))
            extras.append(name)
            graphs.extend(more)
    return tuple(sources), (*extras, *(("own",) if own else ())), tuple(graphs)


def _in_unit(array: Extra, unit: u.UnitBase, name: str) -> Pixels:
    """Return the numbers of an image that may have a unit, in the unit that is wanted."""
    if not (isinstance(array, u.Quantity) or is_nddata(array)):
        return array
    values = array.value if isinstance(array, u.Quantity) else array.data
    factor = 1.0 if array.unit is None else conversion_factor(array.unit, unit, name)
    return cast("Pixels", values if factor == 1 else values * factor)


def _levels(
    image: Image, sources: tuple[Input, ...], background: Background, gain: float, shared: dict[str, Any]
) -> tuple[tuple[str, Scalar], ...]:
    """Return what replaces data and variance where nothing near is good, in electrons, as a global number."""
    if background is None:
        return ()
    if isinstance(background, tuple | list) and len(background) == 2:
        level, variance = (
            _number(number, "background", image.units**power) for power, number in enumerate(background, 1)
        )
        given = np.array([level * gain, variance * gain**2], np.float32)
        return (("levels", Scalar(given=given, what="background levels")),)
    if background != "image":
        raise ParameterError(f"background {background!r} must be 'image', a pair of numbers, or None.")
    return (("levels", _measured_levels(image, sources, shared)),)


def _measured_levels(image: Image, sources: tuple[Input, ...], shared: dict[str, Any]) -> Scalar:
    """Return the lower medians of image and variance over the pixels that are looked at, in electrons."""
    # what is saturated is no pixel of the background: its test is a median of 7 (3 pixels), and it grows by 4
    margin = Halo((8, 8))
    every: PlaneMap = tuple((plane, PLANES if "own" in shared["extras"] else (DATA, "mask")) for plane in PLANES)
    step = Apply(
        image.shape,
        make_dtypes(data=np.float32, variance=np.float32, mask=np.uint8),
        kernel=kernels.lacosmic_start,
        sources=tuple(Input(s.step, margin, every) for s in sources),
        params=make_params(**shared),
        scratch_bytes=_scratch_bytes(image, shared["settings"], shared["extras"], offset=shared["offset"], whole=False),
    )
    # otherwise the variance is the image plus a number, and so is its median: one plane to count instead of two
    own_variance = {"variance", "own"} & set(shared["extras"])
    noise = None if own_variance else shared["settings"].noise
    # most images have no pixel that needs them; in a large one there may be one, and in each process a task would read all of it
    on_demand = not step.arrays and step.shape[0] * step.shape[1] <= MOST_ON_DEMAND
    state = Scalar(given=np.zeros((0, 2), np.uint64))
    # two passes, since digits of float32 are counted 16 bits at a time: exact medians without sorting the image
    for k in range(2):
        reduction = Reduction(
            step,
            partial=kernels.count_level_digits,
            final=kernels.next_level_digits,
            merge=quantiles.add_counts,
            params=make_params(step=k, noise=noise),
            scalars=(("state", state),),
            planes=frozenset({DATA, "mask"} | ({"variance"} if own_variance else set())),
            region=Region.full(image.shape),
        )
        state = Scalar(reduction=reduction, what=f"background levels, pass {k + 1} of 2", on_demand=on_demand)
    return state

"""Turn stored numbers into physical values: BITPIX, BSCALE, BZERO, BLANK, and the type they become in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import Array
from lazyccd.kernels.fits import decode

Buffer = npt.NDArray[np.uint8]

_STORED = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
_UNSIGNED_64 = 2.0**63

# 10000 numbers of a fixed generator (FITS standard, section 10.2 and appendix I), the same for all files.
dither_table = functools.cache(decode.dither_table)


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of an image are coded."""

    bitpix: int
    """Bits of a pixel; negative for floats."""

    bscale: float = 1.0
    """Factor."""

    bzero: float = 0.0
    """Summand."""

    blank: int | None = None
    """Stored integer that means that nothing is known."""

    @property
    def stored(self) -> np.dtype[Any]:
        """Type of a stored pixel, in native byte order."""
        return np.dtype(_STORED[self.bitpix])

    @property
    def is_integral(self) -> bool:
        """Whether the physical values are integers: of an integer type, scaled by 1, with an integer zero."""
        return self.bitpix > 0 and self.bscale == 1.0 and self.bzero == np.rint(self.bzero)

    @property
    def default_dtype(self) -> np.dtype[Any]:
        """Float32 for integers of 16 bits and less and for float32, else float64."""
        # float32 holds every integer of 16 bits; of 32 bits only float64 does.
        return np.dtype(np.float32 if self.bitpix in (8, 16, -32) else np.float64)

    def resolve_dtype(self, dtype: npt.DTypeLike | None, name: str) -> np.dtype[Any]:
        """Return the type in memory: the default one, or the one that was asked for.

        Raises
        ------
        ParameterError
            Raised if the type is none of float32, float64 and the integers, or an integer one where the image has
            fractions.
        """
        if dtype is None:
            return self.default_dtype
        wanted = np.dtype(dtype).newbyteorder("=")
        if wanted.kind not in "iu" and wanted not in (np.float32, np.float64):
            raise ParameterError(f"{name}: dtype {wanted} must be float32, float64 or an integer type.")
        if wanted.kind in "iu" and not self.is_integral:
            raise ParameterError(
                f"{name}: dtype {wanted} needs integers and the image has BITPIX {self.bitpix}, "
                f"BSCALE {self.bscale:g}, BZERO {self.bzero:g}; read it as {self.default_dtype}."
            )
        return wanted


class Decoder:
    """Turns stored numbers of one type into numbers of another, a block of rows at a time."""

    def __init__(
        self, pixels: PixelFormat, dtype: np.dtype[Any], name: str, *, stored: np.dtype[Any], big_endian: bool
    ) -> None:
        """Choose the kernel.

        Parameters
        ----------
        pixels
            What the numbers mean.
        dtype
            Type of the output.
        name
            File and HDU, for messages.
        stored
            Type of the input, which is not that of BITPIX in compressed tiles.
        big_endian
            Whether the input is as in a FITS file; else it is native.
        """
        self._pixels = pixels
        self._dtype = dtype
        self._name = name
        self._stored = stored
        # FITS is big-endian; from the reader on everything is native.
        self._swap = big_endian and stored.itemsize > 1
        self._run = self._choose()

    def decode(self, raw: Buffer, start: int, stride: int, out: Array) -> None:
        """Write rows of pixels.

        Parameters
        ----------
        raw
            Bytes of the input.
        start
            First pixel wanted.
        stride
            Pixels from one row to the next.
        out
            Output of shape ``(rows, columns)``, C-contiguous.
        """
        self._run(raw[: raw.size - raw.size % self._stored.itemsize], start, stride, out)

    @property
    def keeps_size(self) -> bool:
        """Whether pixels keep their type, so that `decode_in_place` does."""
        return self._run == self._copy_floats

    def decode_in_place(self, pixels: Array) -> None:
        """Turn the bytes of a file, read into an array of the output's type, into its numbers."""
        if self._swap:
            decode.swap_in_place(pixels.view(np.dtype(f"u{self._stored.itemsize}")))

    def _choose(self) -> Callable[[Buffer, int, int, Array], None]:
        """Return the method for these types and this scaling."""
        pixels = self._pixels
        if self._stored.kind == "f":
            same = self._dtype == self._stored and pixels.bscale == 1.0 and pixels.bzero == 0.0
            return self._copy_floats if same else self._convert_floats
        if self._dtype.kind in "iu":
            return self._copy_integers
        return self._integers_to_floats()

    def _integers_to_floats(self) -> Callable[[Buffer, int, int, Array], None]:
        """Return the fastest method that is exact."""
        pixels, stored, swap = self._pixels, self._stored, self._swap
        kernel: Any = decode.scaled_integers
        arguments: tuple[Any, ...] = (pixels.bscale, pixels.bzero)
        if pixels.is_integral:
            # Sums below 2**24 are exact in float32, so no detour by float64 is needed.
            if stored.itemsize <= 2 and abs(pixels.bzero) < 2**23:
                kernel, arguments = decode.small_integers, (int(pixels.bzero),)
            elif (stored.itemsize <= 4 and abs(pixels.bzero) < 2**53) or pixels.bzero == 0.0:
                kernel, arguments = decode.large_integers, (int(pixels.bzero),)
            # uint64 by convention; int64 plus 2**63 would overflow, so the sign bit is flipped.
            elif stored.itemsize == 8 and pixels.bzero == _UNSIGNED_64:
                stored = np.dtype(np.uint64)
                kernel, arguments = decode.large_integers, (np.uint64(2**63),)
        blank, has_blank = self._blank(stored)

        def run(raw: Buffer, start: int, stride: int, out: Array) -> None:
            kernel(raw.view(stored), start, stride, out, *arguments, blank, has_blank, swap)

        return run

    def _blank(self, stored: np.dtype[Any]) -> tuple[Any, bool]:
        """Return the blank value in the type that the kernel compares, and whether a pixel can have it."""
        # BLANK is compared before scaling (section 4.4.2.5), and some headers have one that no pixel can have.
        value = self._pixels.blank
        limits = np.iinfo(self._stored)
        if value is None or not limits.min <= value <= limits.max:
            return stored.type(0), False
        return np.array(value, self._stored).view(stored)[()], True

    def _copy_integers(self, raw: Buffer, start: int, stride: int, out: Array) -> None:
        """Copy integers exactly, or say that they do not fit."""
        limits = np.iinfo(self._dtype)
        if self._stored.itemsize == 8 and self._pixels.bzero == _UNSIGNED_64:
            offset: Any = np.uint64(2**63)
            bounds: tuple[Any, Any] = (np.uint64(0), np.uint64(limits.max))
            source: Array = raw.view(np.uint64)
        else:
            offset = int(self._pixels.bzero)
            bounds = (limits.min, min(limits.max, np.iinfo(np.int64).max))
            source = raw.view(self._stored)
        # Masks: a bit that does not fit must be an error, not lost.
        misfits = decode.exact_integers(source, start, stride, out, offset, *bounds, self._swap)
        if misfits:
            raise ParameterError(
                f"{self._name}: {misfits} pixels of {out.shape} do not fit into {self._dtype} "
                f"({limits.min} to {limits.max}); ask for a wider dtype."
            )

    def _copy_floats(self, raw: Buffer, start: int, stride: int, out: Array) -> None:
        """Copy floats of the type wanted, bit by bit."""
        if not self._swap:
            out[...] = self._rows(raw, start, stride, out.shape, self._stored)
            return
        # As integers: copying NaN as a float may change its bits.
        bits = np.dtype(f"u{self._stored.itemsize}")
        decode.swap_rows(raw.view(bits), start, stride, out.view(bits))

    def _convert_floats(self, raw: Buffer, start: int, stride: int, out: Array) -> None:
        """Change the type of floats, or scale them."""
        stored = self._stored.newbyteorder(">") if self._swap else self._stored
        rows = self._rows(raw, start, stride, out.shape, stored)
        # A float64 beyond the range of float32 becomes infinite, as in any conversion of NumPy.
        with np.errstate(over="ignore", invalid="ignore"):
            if self._pixels.bscale == 1.0 and self._pixels.bzero == 0.0:
                out[...] = rows
            else:
                decode.scaled_floats(rows.astype(self._stored), out, self._pixels.bscale, self._pixels.bzero)

    @staticmethod
    def _rows(raw: Buffer, start: int, stride: int, shape: tuple[int, ...], stored: np.dtype[Any]) -> Array:
        """Return a view of the rows."""
        pixels = raw.view(stored)[start:]
        strides = (stride * stored.itemsize, stored.itemsize)
        return np.lib.stride_tricks.as_strided(pixels, shape, strides, writeable=False)

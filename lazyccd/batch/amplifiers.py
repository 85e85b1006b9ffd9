"""Images that several amplifiers were read into: each amplifier is reduced as an image of its own, and all become one detector.

Where the sections of amplifiers stand in the header, or in ``[amplifiers]`` of a camera table, each has its own overscan, gain and
read noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lazyccd.batch.cameras import Camera, cameras_of
from lazyccd.batch.collect import RawFrame
from lazyccd.errors import ParameterError, SectionError
from lazyccd.io.names import split_hdu
from lazyccd.ops.mosaic.split import Tap, tap_header, taps_of

_WORD = "amplifier "
"""Before the name of an amplifier in brackets behind that of its file, so that it is no HDU."""


def split_images(frames: Iterable[RawFrame], user: Camera | None, given: Iterable[str]) -> tuple[RawFrame, ...]:
    """Return images, each that holds several amplifiers as these; what is not clear is left as one.

    Parameters
    ----------
    frames
        Images of a night.
    user
        The user's camera table, if there is one.
    given
        Names of the facts that were given for all frames. An overscan is one of the whole image, which is then left as it is.
    """
    if "overscan" in given:
        return tuple(frames)
    return tuple(part for frame in frames for part in _parts(frame, cameras_of(frame, user)))


def file_and_hdu(name: str) -> str:
    """Return the name of an image without the amplifier behind it.

    Examples
    --------
    >>> file_and_hdu("a.fits[amplifier B]"), file_and_hdu("a.fits[SCI,1]")
    ('a.fits', 'a.fits[SCI,1]')
    """
    file, selector = split_hdu(name)
    return file if selector.startswith(_WORD) else name


def _parts(frame: RawFrame, cameras: tuple[Camera, ...]) -> list[RawFrame]:
    """Return the amplifiers of an image, or the image."""
    # images of a file with several have names of their own, and what was asked for by its HDU is wanted as it is
    if frame.part or split_hdu(frame.name)[1] or any(_fixes_overscan(camera, frame) for camera in cameras):
        return [frame]
    sections = next((found for camera in cameras if (found := camera.amplifiers_of(frame))), None)
    if sections is None and len(frame.amplifiers) < 2:
        return [frame]
    try:
        taps = taps_of(frame.header, frame.shape, sections)
    except (ParameterError, SectionError) as error:
        # those of a table were stated, and are wrong for this image
        if sections is not None:
            raise ParameterError(f"{frame.name}: [amplifiers] of the camera table: {error}") from error
        return [replace(frame, notes=(*frame.notes, f"its amplifiers are not taken apart: {error}"))]
    return [_part(frame, name, tap) for name, tap in taps.items()]


def _fixes_overscan(camera: Camera, frame: RawFrame) -> bool:
    return any(rule.holds(frame) for rule in camera.fixed_by("overscan"))


def _part(frame: RawFrame, name: str, tap: Tap) -> RawFrame:
    """Return one amplifier of an image."""
    return replace(
        frame,
        name=f"{frame.name}[{_WORD}{name}]",
        shape=tap.region.shape,
        header=tap_header(frame.header, name, tap),
        single=False,
        part=name,
        child=name,
        tap=tap,
    )

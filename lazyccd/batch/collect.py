"""The files of a night: found, their headers read, what cannot be read kept with the reason."""

from __future__ import annotations

import filecmp
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning

from lazyccd.errors import LazyCCDError, quiet
from lazyccd.io.fits.hdu_roles import images_of
from lazyccd.io.fits.header_cache import scan_many
from lazyccd.io.fits.mef import OnError, damage_of, frame_names
from lazyccd.io.fits.scan import FitsFile, HduInfo
from lazyccd.io.fits.storage import COMPANIONS
from lazyccd.io.names import Name, Selector, find_files, fits_below, is_url, parse_name, split_hdu
from lazyccd.ops.mosaic.split import Tap, amplifiers_in, gains_in

RECORD = "run.json"
"""What a run notes beside its products; see `lazyccd.batch.record`."""

BEGIN = b'{"format_version": '
"""Its first bytes, which tell it from files of that name of other programs."""


class Cards(NamedTuple):
    """What the cards of a header say, by keyword."""

    values: dict[str, Any]
    """The first readable value of each keyword."""

    comments: dict[str, str]
    others: dict[str, tuple[Any, ...]]
    """Values of repeated keywords that differ from the first."""

    texts: dict[str, str]
    """Text of all cards of each keyword."""


@dataclass(frozen=True)
class RawFrame:
    """One image of a night: its place, its shape, and both headers as they are in the file."""

    name: str
    """Short name, below the night's folder, as tables show it."""

    source: str
    """What opens it: path or URL, with the extension where it is not the only image."""

    shape: tuple[int, int]
    """Rows and columns."""

    levels: tuple[int, float, float]
    """BITPIX, BSCALE and BZERO."""

    header: str = field(repr=False)
    """Cards of the image's HDU, joined by newlines."""

    root: str = field(repr=False)
    """Cards of the primary HDU where the image is an extension, else empty."""

    single: bool = True
    """Whether the file holds no other image, so that the primary header belongs to this one."""

    notes: tuple[str, ...] = ()
    """What was noticed while reading."""

    part: str = ""
    """Which image of its file it is, such as ``SCI,1``; empty for the only one."""

    child: str = ""
    """Its name in the tree of the file, which its products keep; empty for the only one."""

    tap: Tap | None = None
    """Where it lies in the image that `source` opens, if it is one of several amplifiers of that."""

    @cached_property
    def amplifiers(self) -> tuple[str, ...]:
        """Names of the amplifiers of the image, where its header has the sections of several."""
        return amplifiers_in(self.header)

    @cached_property
    def gains(self) -> tuple[str, ...]:
        """Names of the amplifiers of which its header has a gain or read noise each, where these are several."""
        return gains_in(self.header)

    @cached_property
    def _own(self) -> Cards:
        return _parse(self.header)

    @cached_property
    def _of_file(self) -> Cards:
        return _parse(self.root)

    @property
    def cards(self) -> Mapping[str, Any]:
        """Values of the image's own header."""
        return self._own.values

    @property
    def root_cards(self) -> Mapping[str, Any]:
        """Values of the primary header behind it."""
        return self._of_file.values

    @cached_property
    def _both(self) -> Mapping[str, Any]:
        """Values of the image's own header, and of the primary header where that has none."""
        return {**self.root_cards, **self.cards} if self.root else self.cards

    @cached_property
    def _local(self) -> Mapping[str, Any]:
        """The same of what an extension among several has for itself."""
        # The primary of a mosaic speaks of the whole: Sinistro's has GAIN = 0.0 and sections of the mosaic.
        return self._both if self.single or self.cards.get("INHERIT") is True else self.cards

    @property
    def top(self) -> int | None:
        """The largest value that an integer image can hold, None for floats and 32 bits or more."""
        bits, scale, zero = self.levels
        # Of 32 bits and floats no detector fills the range, so the type says nothing about saturation.
        if bits not in (8, 16):
            return None
        return int((255 if bits == 8 else 32767) * scale + zero)

    def get(self, keyword: str, *, local: bool = False) -> Any:
        """Return a keyword's value, or None.

        Parameters
        ----------
        keyword
            Such as ``EXPTIME`` or ``ESO DET READ SPEED``.
        local
            Whether it is a section or a gain, which an extension among several takes from the primary header only
            where INHERIT is T.
        """
        return (self._local if local else self._both).get(keyword)

    def comment(self, keyword: str) -> str:
        """Return the comment of the card that `get` takes the value from."""
        cards = self._own if self.cards.get(keyword) is not None else self._of_file
        return cards.comments.get(keyword, "")

    def other_values(self, keyword: str) -> tuple[Any, ...]:
        """Return the values of further cards of a keyword that differ from the one that `get` returns."""
        cards = self._own if self.cards.get(keyword) is not None else self._of_file
        return cards.others.get(keyword, ())

    def keywords(self) -> tuple[str, ...]:
        """Return the keywords of both headers, the image's own first."""
        return tuple(dict.fromkeys([*self.cards, *self.root_cards])) if self.root else tuple(self.cards)

    def texts(self, keyword: str) -> tuple[str | None, str | None]:
        """Return the text of the cards of a keyword, in the image's own header and in the primary header behind it."""
        return self._own.texts.get(keyword), self._of_file.texts.get(keyword) if self.root else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the parsed cards behind."""
        return {key: value for key, value in self.__dict__.items() if key not in _PARSED}


_PARSED = frozenset({"amplifiers", "gains", "_own", "_of_file", "_both", "_local"})
_COMMENTARY = frozenset({"", "COMMENT", "HISTORY"})


class Skipped(NamedTuple):
    """A file or image that cannot be used."""

    name: str
    reason: str


@dataclass(frozen=True)
class NightFiles:
    """The images of a night, and the files that gave none."""

    folder: str
    """Folder that the short names begin at."""

    frames: tuple[RawFrame, ...]
    """Images, in the order of the names given; those of a folder by name."""

    skipped: tuple[Skipped, ...] = ()
    """Files that cannot be used, and why."""

    notes: tuple[str, ...] = ()
    """What was noticed and changes nothing: copies of one frame, subfolders that were not searched."""


def collect(
    names: Name | Iterable[Name],
    on_error: OnError = "raise",
    *,
    recursive: bool = False,
    only: Collection[str] | None = None,
) -> NightFiles:
    """Find the files of a night and read their headers.

    Parameters
    ----------
    names
        A folder (its FITS files, by name), or files, globs, ``@list`` and ``file.fits[SCI,1]``; one or several.
    on_error
        With "skip", an image that is damaged, which is looked at as `open_mef` does, is skipped and not its file; with
        "raise", a file with an extension that is cut is skipped, and a damaged tile found when it is reduced.
    recursive
        Whether subfolders of a folder are searched too; those with FITS files are noted if not.
    only
        Paths of the files that are looked at, of folders that still fill; all if None.

    Raises
    ------
    MissingFileError
        Raised if a folder holds no FITS file, or a name, list or glob leads nowhere.
    """
    given = [names] if isinstance(names, (str, os.PathLike)) else list(names)
    # The same file by two globs is one frame of the night.
    inputs = list(dict.fromkeys(find_files(given, recursive=recursive)))
    roots = {os.path.abspath(os.path.expanduser(os.fspath(name))) for name in given}
    products = [item.path for item in inputs if recursive and _is_product(os.path.abspath(item.path), roots)]
    passed = set(products)
    inputs = [item for item in inputs if item.path not in passed] or inputs
    if only is None:
        folder = _folder([item.path for item in inputs])
    else:
        # names of frames must stay the same when another subfolder gets its first frame
        folder = os.path.commonpath([os.path.abspath(os.path.expanduser(name)) for name in given])
        inputs = [item for item in inputs if item.path in only]
    scans = scan_many((item.path for item in inputs), keep_going=on_error == "skip")
    siblings = _siblings(scans)
    frames: list[RawFrame] = []
    skipped: list[Skipped] = []
    inside: dict[str, str] = {}
    for item, scanned in zip(inputs, scans, strict=True):
        short = _short(item.path, folder, inside)
        # One damaged file must not stop a night; the exit status still tells of it.
        if isinstance(scanned, LazyCCDError):
            skipped.append(Skipped(short, str(scanned)))
            continue
        some, problems = _images(scanned, item.hdu, short, siblings, skip=on_error == "skip")
        frames += some
        skipped += problems
    # Products may lie beside the raw frames, where OUT is the folder of the night.
    beside = {frame.source for frame in frames if _is_written(frame, roots)}
    if len(beside) < len(frames):
        frames = [frame for frame in frames if frame.source not in beside]
        products += sorted({parse_name(source).path for source in beside})
    frames, notes = _count_copies_once(frames)
    notes = [*notes, *([] if recursive else _subfolders(given))]
    if products:
        example = _short(products[0], folder, inside)
        notes.append(f"{len(products)} products of an earlier run are passed over, such as {example}")
    return NightFiles(folder, tuple(frames), tuple(skipped), tuple(notes))


def _is_product(path: str, roots: set[str]) -> bool:
    """Return whether a file lies in a folder of products, below those that were named: OUT may be inside of the night."""
    folder = os.path.dirname(path)
    while len(folder) > 1 and folder not in roots:
        if has_record(folder):
            return True
        folder = os.path.dirname(folder)
    return False


def _is_written(frame: RawFrame, roots: set[str]) -> bool:
    """Return whether an image is a product that a run wrote into its folder, and was not named itself."""
    if frame.get("LZSTATUS") is None:
        return False
    path = os.path.abspath(_path(frame))
    return path not in roots and has_record(os.path.dirname(path))


def has_record(folder: str) -> bool:
    """Return whether a run of `lazyccd reduce` wrote its products into a folder."""
    try:
        with open(os.path.join(folder, RECORD), "rb") as file:
            return file.read(len(BEGIN)) == BEGIN
    except OSError:
        return False


def _images(
    file: FitsFile, asked: Selector | None, short: str, siblings: Mapping[tuple[str, str], str], *, skip: bool
) -> tuple[list[RawFrame], list[Skipped]]:
    """Return the images of a file, and what of it cannot be used."""
    problems = _unread(file, asked, short)
    if problems and asked is not None:
        return [], problems
    picked = _pick(file, asked)
    if isinstance(picked, str):
        return [], [*problems, Skipped(short, picked)]
    # Names come from all images, so that a product without some keeps the names of the others.
    children = {hdu.index: name for hdu, name in frame_names(images_of(file))}
    lonely = siblings.get((_camera(file), picked[0].label), "") if len(picked) == 1 and picked[0].index else ""
    frames = []
    for hdu in picked:
        child = lonely or children.get(hdu.index, "")
        named = len(picked) > 1 or asked is not None or bool(lonely)
        frame = _frame(file, hdu, short, child, named=named, has_siblings=bool(lonely))
        damage = damage_of(file, hdu) if skip else ""
        if not damage:
            frames.append(frame)
        elif not hdu.damage:
            problems.append(Skipped(frame.name, damage))
    return frames, problems


def _siblings(scans: Iterable[FitsFile | LazyCCDError]) -> dict[tuple[str, str], str]:
    """Return the names of the images of files that have several, by camera and extension.

    An exposure of which one detector is left is told apart by its extension still: its calibrations are those of that detector.
    """
    found: dict[tuple[str, str], str] = {}
    for file in scans:
        images = [] if isinstance(file, LazyCCDError) else images_of(file)
        if isinstance(file, FitsFile) and len(images) > 1:
            found |= {(_camera(file), hdu.label): name for hdu, name in frame_names(images)}
    return found


def _camera(file: FitsFile) -> str:
    """Return what the headers of a file call the instrument."""
    found = (re.search(r"^INSTRUME= *'([^']*)'", hdu.header, re.MULTILINE) for hdu in file.hdus)
    return next((match[1].strip() for match in found if match), "")


def _count_copies_once(frames: list[RawFrame]) -> tuple[list[RawFrame], list[str]]:
    """Leave out copies of a frame, packed ones such as a.fits.gz beside a.fits and equal files in two folders, and say so."""
    first: dict[tuple[str, str], RawFrame] = {}
    headers: dict[tuple[str, str, str], RawFrame] = {}
    kept, copies = [], []
    for frame in frames:
        file, part = split_hdu(frame.name)
        key = (re.sub(r"\.(?:gz|bz2|xz|fz)$", "", file, flags=re.IGNORECASE), part)
        other = first.setdefault(key, frame)
        same = headers.setdefault((os.path.basename(file), part, frame.header + frame.root), frame)
        # A flat in two folders would count twice.
        if same is not frame and not is_url(frame.source) and filecmp.cmp(_path(same), _path(frame), shallow=False):
            copies.append(f"{frame.name} is {same.name}")
        elif other is not frame and _is_copy(frame, other):
            copies.append(f"{frame.name} is {other.name}")
        else:
            kept.append(frame)
    if len(copies) > 2:
        shown = ", ".join(copies[:3]) + (", ..." if len(copies) > 3 else "")
        return kept, [f"{len(copies)} files are copies of others ({shown}): each counts once"]
    return kept, [f"{copy} once more: it counts once" for copy in copies]


def _path(frame: RawFrame) -> str:
    """Return the path of a frame's file."""
    return parse_name(frame.source).path


def _is_copy(frame: RawFrame, other: RawFrame) -> bool:
    """Return whether two images are one exposure, by shape and what their headers say of it."""
    keys = ("DATE-OBS", "MJD-OBS", "EXPTIME", "OBJECT", "IMAGETYP", "FILTER")
    return frame.shape == other.shape and all(frame.get(key) == other.get(key) for key in keys)


def _subfolders(names: Iterable[Name]) -> list[str]:
    """Say which folders below those that were named hold FITS files that were not asked for."""
    notes = []
    for name in names:
        text = os.path.expanduser(os.fspath(name))
        if is_url(text) or not os.path.isdir(text):
            continue
        root = {os.path.abspath(text)}
        counts = {
            path: len(found)
            for path, found in fits_below(text)
            if path != text and found and not _is_product(os.path.abspath(os.path.join(path, found[0])), root)
        }
        if counts:
            shown = ", ".join(f"{os.path.relpath(path, text)} ({count})" for path, count in counts.items())
            notes.append(f"subfolders with FITS files are not searched: {shown}; -r searches them")
    return notes


def _folder(paths: list[str]) -> str:
    """Return the folder that holds all files."""
    local = [os.path.dirname(path) for path in paths if not is_url(path)]
    return os.path.commonpath(local) if local else os.getcwd()


def _short(path: str, folder: str, inside: dict[str, str]) -> str:
    """Return a path below the folder; what is known of the folders of files is kept in ``inside``."""
    if is_url(path):
        return path
    head, name = os.path.split(path)
    if head not in inside:
        inside[head] = os.path.relpath(head or os.curdir, folder)
    return name if inside[head] == os.curdir else os.path.join(inside[head], name)


def _pick(file: FitsFile, hdu: Selector | None) -> list[HduInfo] | str:
    """Return the images to reduce, or why there is none."""
    if hdu is not None:
        chosen = [item for item in file.hdus if _is(item, hdu)]
        if not chosen:
            return f"has no extension {hdu!r}; it has {', '.join(item.label + item.name for item in file.hdus)}"
        if not chosen[0].is_plane:
            return f"extension {hdu!r} is no image of two axes but {chosen[0].kind} {chosen[0].shape}"
        return chosen[:1]
    images = [item for item in file.hdus if item.kind == "image" and item.name.upper() not in COMPANIONS]
    planes = [item for item in images if item.is_plane]
    # The shapes tell a cube or a table from an empty file, which have different ways out.
    if not planes:
        shapes = ", ".join(f"{item.label} {item.shape}" for item in images)
        return f"holds no image of two axes; it has {shapes}" if shapes else "holds no image"
    labels = [item.label for item in planes]
    # Products and masters find their image by this label.
    doubled = next((label for label in labels if labels.count(label) > 1), None)
    if doubled is not None:
        return f"holds several images {doubled}; give their extensions other names or versions"
    return images_of(file) or planes[:1]


def _unread(file: FitsFile, hdu: Selector | None, short: str) -> list[Skipped]:
    """Return the extensions, or the one that was named, whose header or length tells that they cannot be read, and why."""
    found = [Skipped(f"{short}[{index}]", text) for index, text in file.damaged if hdu in {None, index}]
    return found + [
        Skipped(short + item.label, item.damage)
        for item in file.hdus
        if item.damage and (hdu is None or _is(item, hdu))
    ]


def _is(item: HduInfo, hdu: Selector) -> bool:
    """Return whether a selector means this HDU."""
    if isinstance(hdu, int):
        return item.index == hdu
    name, version = hdu if isinstance(hdu, tuple) else (hdu, None)
    return item.name.upper() == name.upper() and version in (None, item.ver)


def _frame(
    file: FitsFile, hdu: HduInfo, short: str, child: str, *, named: bool, has_siblings: bool = False
) -> RawFrame:
    """Make the description of one image."""
    images = [item for item in file.hdus if item.kind == "image" and item.name.upper() not in COMPANIONS]
    notes = (f"an image of axes {hdu.shape} is read as {hdu.plane_shape}",) if len(hdu.shape) > 2 else ()
    alone = len(images) <= 1 and not has_siblings
    # A companion such as a mask makes a bare path ambiguous for the reader.
    label = hdu.label if named or len([item for item in file.hdus if item.kind == "image"]) > 1 else ""
    return RawFrame(
        name=short + (label if named else ""),
        source=file.path + label,
        shape=(hdu.plane_shape[0], hdu.plane_shape[1]),
        levels=(hdu.bitpix, hdu.bscale, hdu.bzero),
        header=hdu.header,
        root=file.hdus[0].header if hdu.index else "",
        single=alone,
        part="" if alone else hdu.label.strip("[]"),
        child="" if alone else child,
        notes=notes,
    )


def _parse(text: str) -> Cards:
    """Return what all cards say that have a readable value; the first card of a keyword counts."""
    values, comments, others, texts = found = Cards({}, {}, {}, {})
    for card in _cards(text):
        read = _read_card(card)
        if read is None:
            continue
        keyword, value, comment = read
        if keyword not in values:
            values[keyword], comments[keyword], texts[keyword] = value, comment, card
            continue
        texts[keyword] += card
        if value != values[keyword]:
            others[keyword] = (*others.get(keyword, ()), value)
    return found


def _cards(text: str) -> Iterator[str]:
    """Yield the cards of a header before its end, each with those that it goes on in."""
    lines = text.split("\n")
    if "\nCONTINUE" not in text:
        return itertools.takewhile(lambda line: line.rstrip() != "END", lines)
    joined = re.sub(r"\n(?=CONTINUE)", "", "\n".join(line.ljust(80) for line in lines))
    return itertools.takewhile(lambda line: line.rstrip() != "END", joined.split("\n"))


@lru_cache(1 << 16)
def _read_card(card: str) -> tuple[str, Any, str] | None:
    """Return keyword, value and comment of a card; None of one that has no readable value.

    Most cards of a night are the same in all frames, and each is parsed once: 10 000 headers took 12 s otherwise.
    """
    # A card that breaks the standard is left out or read as far as it goes; nothing here depends on its style.
    with quiet(VerifyWarning):
        try:
            read = fits.Card.fromstring(card)
            # astropy leaves the case of HIERARCH keywords as it is; tables are read without regard to it.
            keyword, value, comment = read.keyword.upper(), read.value, read.comment
        except (VerifyError, ValueError):
            return None
    if keyword in _COMMENTARY or not isinstance(value, (str, int, float, bool)):
        return None
    return keyword, value, comment

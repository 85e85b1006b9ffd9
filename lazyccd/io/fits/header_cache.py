"""Headers of many files at once, from the files or from where an earlier process left them.

`scan_many` is `scan_fits` for a night. What it finds is kept in the user's cache folder, beside the compiled kernels, in one file
for each folder of FITS files. A header is taken from there if size, time of change and inode of its file are what they were.

1. Only files that are whole are kept: what is wrong with others is found anew each time.
2. A file of the cache is written under another name and then renamed, so that no process sees half of one. Of two that write at
   the same time one wins, and the other's headers are read once more.
3. One that is damaged, or was written by other code, counts as none. Beyond `MOST_BYTES` those used longest ago are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numcodecs.zstd import Zstd

from lazyccd.errors import LazyCCDError
from lazyccd.io.fits.byte_source import Identity
from lazyccd.io.fits.scan import FitsFile, HduInfo, scan_fits
from lazyccd.io.fits.tile_table import TileColumn, TileTable
from lazyccd.io.names import Name, is_url, parse_name
from lazyccd.kernels.cache_folder import TEMPORARY, cache_folder, sources_digest

MOST_BYTES = 256 << 20
"""Bytes of the whole cache: headers of about 300 000 files."""

BYTES_PER_FILE = 1 << 16
"""Bytes of a cache file that are worth reading for each header that is asked for; 10 000 headers take 8 MB."""

FRESH = 100_000_000
"""Nanoseconds: a file that changed so lately may change again without its time of change moving, and is not kept."""

FRESH_SECONDS = 2_000_000_000
"""The same where times of change are whole or even seconds, as on FAT and older network file systems."""


def scan_many(paths: Iterable[Name], *, keep_going: bool = False) -> list[FitsFile | LazyCCDError]:
    """Read the headers of many files at once, as `scan_fits` does.

    Parameters
    ----------
    paths
        Local paths or URLs.
    keep_going
        As of `scan_fits`.

    Returns
    -------
    list
        In the order of ``paths``; where a file cannot be read, its error stands in its place.
    """
    names = [_full(path) for path in paths]
    folders: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if not is_url(name):
            folders.setdefault(os.path.dirname(name), []).append(name)
    kept = {folder: FolderCache.of(folder, count=len(some)) for folder, some in folders.items()}
    known = {name: file for folder, some in folders.items() for name, file in kept[folder].find(some).items()}
    new = [name for name in dict.fromkeys(names) if name not in known]

    # One bad file of a night must not hide the others.
    def scan(path: str) -> FitsFile | LazyCCDError:
        try:
            return scan_fits(path, keep_going=keep_going)
        except LazyCCDError as error:
            return error

    # Waiting for a disk and not the processor takes the time, so more threads than cores.
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1)), "lazyccd-scan") as pool:
        scanned = dict(zip(new, pool.map(scan, new), strict=True))
    for folder, some in folders.items():
        kept[folder].add([file for name in some if isinstance(file := scanned.get(name), FitsFile)])
    found: dict[str, FitsFile | LazyCCDError] = {**known, **scanned}
    return [found[name] for name in names]


def _full(path: Name) -> str:
    """Return a URL, or an absolute path."""
    text = parse_name(path).path
    return text if is_url(text) else os.path.abspath(text)


class FolderCache:
    """The headers of the files of one folder, as they were kept.

    Parameters
    ----------
    path
        The file of the cache; None if headers are not kept.
    entries
        What it has for each name.
    """

    def __init__(self, path: Path | None, entries: Mapping[str, Any]) -> None:
        self._path = path
        self._entries = dict(entries)

    @classmethod
    def of(cls, folder: str, count: int) -> FolderCache:
        """Return what is kept of a folder, of which ``count`` headers are asked for."""
        place = _cache_folder()
        if place is None:
            return cls(None, {})
        path = place / f"{sha256(os.fsencode(folder)).hexdigest()[:32]}.headers"
        try:
            # one file of a night of thousands is read sooner than the headers of all
            if path.stat().st_size > count * BYTES_PER_FILE:
                return cls(None, {})
        except OSError:
            return cls(path, {})
        return cls(path, _read(path, folder))

    def find(self, names: Iterable[str]) -> dict[str, FitsFile]:
        """Return the files whose headers are kept and that have not changed since."""
        found = {}
        for name in names if self._entries else ():
            entry = self._entries.get(os.path.basename(name))
            if entry is None:
                continue
            try:
                status = os.stat(name)
            except OSError:
                continue
            if entry[:3] == [status.st_size, status.st_mtime_ns, status.st_ino]:
                found[name] = _restored(name, entry)
        if found and self._path is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path)  # used now: those used longest ago are the first to go
        return found

    def add(self, files: Sequence[FitsFile]) -> None:
        """Keep the headers of more files; forget those of files that are gone."""
        whole = [file for file in files if not file.damaged and not any(hdu.damage for hdu in file.hdus)]
        new = {os.path.basename(file.path): _entry(file) for file in whole if not _is_fresh(file.identity)}
        if not new or self._path is None:
            return
        folder = os.path.dirname(files[0].path)
        try:
            there = {entry.name for entry in os.scandir(folder)}
            # another process may have kept more since this one read it
            kept = {name: entry for name, entry in _read(self._path, folder).items() if name in there}
            _write(self._path, folder, {**kept, **new})
            _remove_oldest(self._path.parent.parent)
        except OSError:  # no space, or a folder that cannot be listed: headers are read from the files, as before
            return


def _cache_folder() -> Path | None:
    """Return the folder of the cache, which exists; None if this user has none that can be written to."""
    kernels = cache_folder()
    if kernels.name.startswith(TEMPORARY):
        return None
    folder = kernels.parent / f"headers-{_code()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder


@cache
def _code() -> str:
    """Return a hash of the code that reads headers: what other code found is not taken for this one's."""
    return sources_digest(Path(__file__).parent)


def _read(path: Path, folder: str) -> dict[str, Any]:
    """Return the entries of a cache file; none if it is not there, damaged, or of another folder."""
    try:
        stored = path.read_bytes()
        if int.from_bytes(stored[:4], "big") != zlib.crc32(stored[4:]):
            return {}
        content = json.loads(Zstd().decode(stored[4:]))
    except (OSError, ValueError, RuntimeError):
        return {}
    if content["folder"] != folder:
        return {}
    cards = content["cards"]
    for *_, hdus in content["files"].values():
        for hdu in hdus:
            hdu[_HEADER] = "\n".join([cards[number] for number in hdu[_HEADER]])
    return dict(content["files"])


def _write(path: Path, folder: str, entries: Mapping[str, Any]) -> None:
    """Replace a cache file, so that other processes see the old or the new one whole."""
    # most cards are in the headers of all files: with each of them once there is a third of the text to write and to parse
    numbers: dict[str, int] = {}
    files = {}
    for name, (*state, hdus) in entries.items():
        kept = [list(hdu) for hdu in hdus]
        for hdu in kept:
            hdu[_HEADER] = [numbers.setdefault(card, len(numbers)) for card in hdu[_HEADER].split("\n")]
        files[name] = [*state, kept]
    text = json.dumps({"folder": folder, "cards": list(numbers), "files": files}, separators=(",", ":"))
    packed = bytes(Zstd(level=1).encode(text.encode()))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(zlib.crc32(packed).to_bytes(4, "big") + packed)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _remove_oldest(root: Path) -> None:
    """Remove cache files that were used longest ago, those of older code too, until all take no more than `MOST_BYTES`."""
    files = []
    # asked for with each write: paths as objects would take ten times as long to list as their names
    for folder in (entry.path for entry in os.scandir(root) if entry.name.startswith("headers-")):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):  # another process may have removed it
                status = entry.stat()
                files.append((status.st_mtime_ns, status.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files) if total > MOST_BYTES else ():
        Path(path).unlink(missing_ok=True)
        total -= size
        if total <= MOST_BYTES:
            return


def _is_fresh(identity: Identity) -> bool:
    """Return whether a file may change again without its size and time of change telling."""
    coarse = identity.mtime_ns % 1_000_000_000 == 0
    return time.time_ns() - identity.mtime_ns < (FRESH_SECONDS if coarse else FRESH)


def _entry(file: FitsFile) -> list[Any]:
    """Return what is kept of a file."""
    state = file.identity
    return [state.size, state.mtime_ns, state.inode, file.encoding, [_hdu_entry(hdu) for hdu in file.hdus]]


def _hdu_entry(hdu: HduInfo) -> list[Any]:
    """Return what is kept of an HDU: its fields in their order."""
    tiles = None
    if hdu.tiles is not None:
        fields = vars(hdu.tiles)
        tiles = {**fields, "columns": [list(vars(column).values()) for column in hdu.tiles.columns]}
    return list({**vars(hdu), "tiles": tiles}.values())


def _restored(path: str, entry: list[Any]) -> FitsFile:
    """Return the file that an entry was made from."""
    size, mtime_ns, inode, encoding, hdus = entry
    return FitsFile(path, Identity(size, mtime_ns, inode), encoding, tuple(_restored_hdu(hdu) for hdu in hdus))


def _restored_hdu(entry: list[Any]) -> HduInfo:
    """Return the HDU that an entry was made from."""
    fields = list(entry)
    fields[_SHAPE] = tuple(fields[_SHAPE])
    if (tiles := fields[_TILES]) is not None:
        columns = tuple(TileColumn(*column) for column in tiles["columns"])
        fields[_TILES] = TileTable(**{**tiles, "shape": tuple(tiles["shape"]), "columns": columns})
    return HduInfo(*fields)


_SHAPE, _TILES, _HEADER = map(list(HduInfo.__dataclass_fields__).index, ("shape", "tiles", "header"))
"""Where these fields are in an entry."""

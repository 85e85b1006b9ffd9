"""Parse names of inputs and targets: ``file.fits[SCI,2]``, ``@list``, globs and URLs."""

from __future__ import annotations

import glob
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lazyccd.errors import ArgumentTypeError, FormatError, MissingFileError, ParameterError

Selector = int | str | tuple[str, int]
"""Selects an HDU by its number (0 is the primary), its EXTNAME, or EXTNAME and EXTVER."""

Name = str | os.PathLike[str]

ENDINGS = tuple(stem + packed for stem in (".fits", ".fit", ".fts") for packed in ("", ".gz", ".bz2", ".xz", ".fz"))
"""How the names of FITS files end, in lower case."""

_SUFFIX = re.compile(r"^(?P<path>.+)\[(?P<hdu>[^\[\]]*)\]$", re.DOTALL)


class InputName(NamedTuple):
    """A file and the HDU that its name selects."""

    path: str
    hdu: Selector | None


def is_url(path: str) -> bool:
    """Return whether a path is for fsspec and not for the local file system."""
    # fsspec chains file systems by "::", such as zip://a.fits::s3://bucket/b.zip.
    return "://" in path or "::" in path


def as_seen() -> str:
    """Return who does not find a file, for messages: a worker of a cluster may not see the folders of other machines.

    Empty in all other processes.
    """
    distributed = sys.modules.get("distributed")  # whoever is a worker has imported it
    try:
        worker = None if distributed is None else distributed.get_worker()
    except ValueError:
        return ""
    return "" if worker is None else f" for the worker {worker.address} on {socket.gethostname()}, which may not see it"


def parse_name(name: Name) -> InputName:
    """Split ``file.fits[SCI,2]`` into the file and the HDU.

    Parameters
    ----------
    name
        A path or URL, with or without ``[2]``, ``[SCI]`` or ``[SCI,2]`` behind it. A local file whose name really ends
        in brackets is taken as it is.

    Raises
    ------
    ParameterError
        Raised if the brackets hold anything else, such as an image section.

    Examples
    --------
    >>> parse_name("night/a.fits[SCI,2]")
    InputName(path='night/a.fits', hdu=('SCI', 2))
    >>> parse_name("s3://bucket/a.fits[0]")
    InputName(path='s3://bucket/a.fits', hdu=0)
    """
    text = os.path.expanduser(_text(name))
    text = text.removeprefix("file://")
    # Looking for the file would be a request for a URL.
    match = _SUFFIX.match(text)
    if match is None or (not is_url(text) and os.path.exists(text)):
        return InputName(text, None)
    return InputName(match["path"], parse_selector(match["hdu"]))


def parse_selector(text: str) -> Selector:
    """Parse the text between the brackets of a file name.

    Examples
    --------
    >>> parse_selector("3"), parse_selector("sci"), parse_selector("SCI, 2")
    (3, 'SCI', ('SCI', 2))
    """
    name, _, version = (part.strip() for part in text.partition(","))
    if re.fullmatch(r"\d+", name) and not version:
        return int(name)
    if name and not re.search(r"[:*,]", text.replace(",", "", 1)) and "*" not in text:
        if not version and "," not in text:
            return name.upper()
        if re.fullmatch(r"\d+", version) and not name.isdigit():
            return name.upper(), int(version)
    raise ParameterError(
        f"extension [{text}] must be a number, a name or a name and a version, such as [2], [SCI] or [SCI,2]; "
        "cut image sections with cutout or trim_image."
    )


def expand_names(names: Name | Iterable[Name]) -> list[InputName]:
    """Expand names to files: globs, lists and brackets.

    Parameters
    ----------
    names
        One name or several. Each is a path or URL, or a glob (its matches sorted by name), or ``@list`` (a text file
        with a name per line, where ``#`` starts a comment and relative paths start at the list's folder); any of them
        may end in ``[SCI,2]``, which then applies to every file.

    Raises
    ------
    MissingFileError
        Raised if a glob matches nothing or a list is not there.
    """
    if isinstance(names, (str, os.PathLike)):
        names = [names]
    return [item for name in names for item in _expand(_text(name))]


def find_files(names: Name | Iterable[Name], *, recursive: bool = False) -> list[InputName]:
    """Expand names to files as `expand_names` does, and folders to the FITS files in them; local paths become absolute.

    Parameters
    ----------
    names
        One name or several; the files of a folder come in the order of their names. A file by two names is there once.
    recursive
        Whether subfolders of a folder are searched too.

    Raises
    ------
    MissingFileError
        Raised if a folder holds no FITS file, or a name, list or glob leads nowhere.
    """
    given = [names] if isinstance(names, (str, os.PathLike)) else names
    return list(dict.fromkeys(item for name in given for item in _find(_text(name), recursive=recursive)))


def _find(given: str, *, recursive: bool) -> Iterator[InputName]:
    """Yield the files that a name stands for."""
    text = os.path.expanduser(given)
    if is_url(text) or not os.path.isdir(text):
        for item in expand_names(given):
            yield item if is_url(item.path) else InputName(os.path.abspath(item.path), item.hdu)
        return
    folders = list(fits_below(os.path.abspath(text)))
    found = [os.path.join(path, entry) for path, some in (folders if recursive else folders[:1]) for entry in some]
    if not found:
        below = sum(len(some) for _, some in folders)
        way = f"pass -r for the {below} in its subfolders (recursive=True in Python)" if below else "name another"
        raise MissingFileError(f"folder {text!r} holds no FITS file ({', '.join(ENDINGS[::5])}); {way}.")
    yield from (InputName(path, None) for path in found)


def fits_below(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from one on downwards, with the names of its FITS files."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield path, [name for name in sorted(files) if is_fits_name(name)]


def is_fits_name(name: str) -> bool:
    """Return whether a file of this name is a FITS file that shows in a folder."""
    return name.lower().endswith(ENDINGS) and name[0] != "."


def name_with_hdu(name: InputName) -> str:
    """Return the name of a file and its extension as one string, which `parse_name` takes apart.

    Examples
    --------
    >>> name_with_hdu(InputName("a.fits", ("SCI", 2)))
    'a.fits[SCI,2]'
    """
    if name.hdu is None:
        return name.path
    return f"{name.path}[{','.join(map(str, name.hdu)) if isinstance(name.hdu, tuple) else name.hdu}]"


def split_hdu(name: str) -> tuple[str, str]:
    """Return the file in a name that `name_with_hdu` made, and what stood between the brackets; empty if there were none.

    Brackets within the name of a file are its own.

    Examples
    --------
    >>> split_hdu("a.fits[SCI,2]"), split_hdu("m31 [red] 1.fits")
    (('a.fits', 'SCI,2'), ('m31 [red] 1.fits', ''))
    """
    match = _SUFFIX.match(name)
    return (name, "") if match is None else (match["path"], match["hdu"])


def _text(name: object) -> str:
    """Return the name as a string."""
    if not isinstance(name, (str, os.PathLike)):
        raise ArgumentTypeError(f"file name {name!r} is a {type(name).__name__} and must be a str or a Path.")
    return str(os.fspath(name))


def target_name(path: Name) -> str:
    """Check the name of an output and return it as text.

    Raises
    ------
    ArgumentTypeError
        Raised if it is neither text nor a path.
    ParameterError
        Raised if it is empty.
    """
    text = _text(path)
    if not text.strip():
        raise ParameterError(f"the name of the file is {text!r} and must not be empty; give one, such as 'out.fits'.")
    return text


def _expand(text: str) -> Iterator[InputName]:
    """Yield the files of one name."""
    if text.startswith("@"):
        yield from _read_list(Path(os.path.expanduser(text[1:])))
        return
    path, hdu = parse_name(text)
    # Brackets are also a pattern, and names with brackets exist.
    if not glob.has_magic(path) or (not is_url(path) and os.path.exists(path)):
        yield InputName(path, hdu)
        return
    found = _glob_url(path) if is_url(path) else glob.glob(path, recursive=True)
    if not found:
        raise MissingFileError(f"no file matches {path!r}; correct the pattern or the folder.")
    # File systems list in any order, and stacks must not depend on it.
    yield from (InputName(item, hdu) for item in sorted(found))


def _glob_url(pattern: str) -> list[str]:
    """Return the URLs that match a pattern."""
    import fsspec  # local files, which most are, need none

    filesystem, path = fsspec.url_to_fs(pattern)
    return [str(filesystem.unstrip_protocol(item)) for item in filesystem.glob(path)]


def _read_list(path: Path) -> Iterator[InputName]:
    """Yield the files that a list names."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MissingFileError(f"list {str(path)!r} does not exist; '@' must be followed by a text file.") from None
    except UnicodeDecodeError:
        raise FormatError(f"list {str(path)!r} is not text; it must hold a file name per line.") from None
    for line in lines:
        entry = line.partition("#")[0].strip()
        # A list that names itself would never end.
        if entry.startswith("@") or not entry:
            if entry:
                raise FormatError(f"list {str(path)!r} names the list {entry!r}; a list must name files only.")
            continue
        # Relative to the list, not to where the program runs: lists travel with their files.
        yield from _expand(entry if is_url(entry) else str(path.parent / os.path.expanduser(entry)))

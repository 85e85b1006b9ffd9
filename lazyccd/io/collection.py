"""FITS files as a table of their headers, from which frames are chosen: `Collection`."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lazyccd.errors import KeywordError, LazyCCDError, MissingFileError, ParameterError, warn
from lazyccd.frame.header_values import find_number
from lazyccd.io.fits.hdu_roles import images_of
from lazyccd.io.fits.header_table import Row, Scans, keywords_of, make_table, readable_values
from lazyccd.io.fits.mef import open_mef, tree_of
from lazyccd.io.fits.open import image_of, open_fits
from lazyccd.io.fits.scan import FitsFile
from lazyccd.io.fits.storage import find_hdu
from lazyccd.io.names import InputName, Name, find_files, is_url, name_with_hdu

if TYPE_CHECKING:
    from astropy.table import Table

SHOWN_KEYWORDS = ("imagetyp", "obstype", "object", "filter", "exptime", "date-obs")
"""What the representation of a collection shows of each file, where a header has it."""

SHOWN_ROWS = 10
"""Of how many files."""


class Collection:
    """FITS files, and a table of their headers.

    Names are expanded and headers read at the first use, by several threads, or taken from the cache in the user's cache folder
    where a file's size, time of change and inode are what they were. What `filter` and `groupby` return shares the headers.

    Parameters
    ----------
    names
        A folder (its FITS files, by name), or files, globs, ``@lists`` and ``file.fits[SCI,1]``; one or several.
    recursive
        Whether subfolders of a folder are searched too.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> with TemporaryDirectory() as folder:
    ...     for i, name in enumerate(["R", "V", "V"]):
    ...         fits.writeto(f"{folder}/{i}.fits", np.full((2, 3), i, "int16"), fits.Header({"FILTER": name}))
    ...     night = Collection(folder)
    ...     len(night), [len(group) for _, group in night.groupby("filter")]
    ...     float(night.frames(filter="R")[0]["data"].max())
    (3, [1, 2])
    0.0
    """

    def __init__(self, names: Name | Iterable[Name] = ".", *, recursive: bool = False) -> None:
        # an iterator can be asked once, and `refresh` asks again
        self._names = os.fspath(names) if isinstance(names, (str, os.PathLike)) else list(names)
        self._recursive = recursive
        self._scans = Scans()
        self._rows: dict[InputName, tuple[FitsFile, Row]] = {}
        self._files: list[InputName] | None = None
        self._skipped: dict[str, str] = {}

    def _of(self, files: list[InputName]) -> Collection:
        """Return a collection of some of the files, which shares the headers."""
        chosen = Collection([name_with_hdu(name) for name in files])
        chosen._scans, chosen._rows, chosen._files = self._scans, self._rows, files
        return chosen

    def refresh(self) -> None:
        """Look for files again, and read the headers of those that are new or have changed."""
        inputs = find_files(self._names, recursive=self._recursive)
        found = dict(zip(inputs, self._scans.read([name.path for name in inputs]), strict=True))
        self._files, self._skipped = [], {}
        new: dict[InputName, tuple[str, str]] = {}
        for name, file in found.items():
            try:
                if name not in self._rows or self._rows[name][0] is not file:
                    new[name] = _headers(file, name)
                self._files.append(name)
            except MissingFileError:
                raise
            except LazyCCDError as error:  # one bad file must not hide the others
                self._skipped[name_with_hdu(name)] = str(error)
        for name, row in zip(new, readable_values(list(new.values())), strict=True):
            file = found[name]
            assert isinstance(file, FitsFile)
            self._rows[name] = file, row
        for reason in self._skipped.values():
            warn(f"left out of the collection: {reason}", UserWarning)

    @property
    def _chosen(self) -> list[InputName]:
        """The files, which are looked for at the first use."""
        if self._files is None:
            self.refresh()
        assert self._files is not None
        return self._files

    @property
    def files(self) -> list[str]:
        """Names of the files, absolute, with the extension if one was named."""
        return [name_with_hdu(name) for name in self._chosen]

    @property
    def folder(self) -> str:
        """The folder that the names in `table` begin at: the one that holds all files."""
        local = [os.path.dirname(name.path) for name in self._chosen if not is_url(name.path)]
        return os.path.commonpath(local) if local else os.getcwd()

    @property
    def skipped(self) -> dict[str, str]:
        """Files that cannot be read, and why."""
        self._chosen  # noqa: B018 - looks for the files
        return dict(self._skipped)

    @property
    def table(self) -> Table:
        """A masked table with a row for each file and a column for each keyword, in lower case.

        A file of one image has the values of that image's header, and those of the primary header that it lacks; one of several
        has those of the primary, and what that lacks of its first image's.
        """
        rows = [self._rows[name][1] for name in self._chosen]
        return make_table(self._short_names(), rows, {name: name for name in keywords_of(rows)})

    def _short_names(self) -> list[str]:
        """Return the names of the files, below the folder."""
        folder = self.folder
        short = (n if is_url(n.path) else n._replace(path=os.path.relpath(n.path, folder)) for n in self._chosen)
        return [name_with_hdu(name) for name in short]

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._chosen)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the files."""
        return iter(self.files)

    def filter(self, **keywords: Any) -> Collection:
        """Return the files whose headers have these values.

        Parameters
        ----------
        **keywords
            A value by keyword, in any case; ``date_obs`` is DATE-OBS. Text is compared without regard to case, and may have the
            wildcards ``*`` and ``?``; a list, tuple or array means any of its values, None no value, and a function is called
            with the value of each file that has one.

        Raises
        ------
        KeywordError
            Raised if no file has the keyword.
        """
        rows = [(name, self._rows[name][1]) for name in self._chosen]
        wanted = {self._keyword(keyword): value for keyword, value in keywords.items()}
        return self._of([name for name, row in rows if all(_matches(row.get(k), v) for k, v in wanted.items())])

    def groupby(self, *keywords: str) -> list[tuple[Any, Collection]]:
        """Return the files that have the same values, for each combination of values that occurs, in their order.

        Parameters
        ----------
        *keywords
            One keyword, whose values are the keys, or several: then keys are tuples. A file without the keyword has None.
        """
        if not keywords:
            raise ParameterError('groupby() needs a keyword, such as groupby("filter", "exptime").')
        names = [self._keyword(keyword) for keyword in keywords]
        groups: dict[tuple[Any, ...], list[InputName]] = {}
        for name in self._chosen:
            row = self._rows[name][1]
            groups.setdefault(tuple(row.get(keyword) for keyword in names), []).append(name)
        keys = sorted(groups, key=lambda key: [_order(value) for value in key])
        return [(key if len(names) > 1 else key[0], self._of(groups[key])) for key in keys]

    def _keyword(self, given: str) -> str:
        """Return a keyword as rows have it."""
        rows = [self._rows[name][1] for name in self._chosen]
        names = (given.lower(), given.lower().replace("_", "-"))
        found = next((name for name in names if any(name in row for row in rows)), None)
        if found is None and rows:
            close = difflib.get_close_matches(given.lower(), sorted({name for row in rows for name in row}), n=1)
            hint = f"did you mean {close[0]!r}?" if close else "`table.colnames` lists those that there are."
            raise KeywordError(f"no header of the {len(self)} files has the keyword {given!r}; {hint}")
        return found or given.lower()

    def frames(self, **filters: Any) -> list[xr.Dataset]:
        """Return the chosen files as lazy frames; no pixel is read, and no header again.

        Parameters
        ----------
        **filters
            As of `filter`. For units and chunks, hand what `filter` returns to `open_many`.

        Raises
        ------
        FormatError
            Raised if a file has several images; `trees` opens those.
        """
        return self._open(
            self._of_filters(filters),
            lambda file, name: image_of(file, name.hdu, "auto", None, None).to_dataset(),
            open_fits,
        )

    def trees(self, **filters: Any) -> list[xr.DataTree]:
        """Return the chosen files as lazy trees with all of their images, as `open_mef` does; no pixel is read.

        Parameters
        ----------
        **filters
            As of `filter`.
        """
        return self._open(self._of_filters(filters), lambda file, _: tree_of(file), open_mef)

    def _of_filters(self, filters: Mapping[str, Any]) -> list[InputName]:
        return (self.filter(**filters) if filters else self)._chosen

    def _open(self, names: list[InputName], scanned: Callable[..., Any], anew: Callable[[str], Any]) -> list[Any]:
        """Return files opened from the headers that are there; those with a damaged part anew, which says what it is."""
        files = [(name, self._rows[name][0]) for name in names]
        is_damaged = [bool(file.damaged or any(hdu.damage for hdu in file.hdus)) for _, file in files]
        return [
            anew(name_with_hdu(name)) if damaged else scanned(file, name)
            for (name, file), damaged in zip(files, is_damaged, strict=True)
        ]

    def _shown(self) -> Table:
        """Return the part of the table that is shown."""
        some = self._chosen[:SHOWN_ROWS]
        rows = [self._rows[name][1] for name in some]
        names = {name: name for name in SHOWN_KEYWORDS if any(name in row for row in rows)}
        return make_table(self._short_names()[: len(some)], rows, names)

    def _title(self) -> str:
        more = f", of which {SHOWN_ROWS} are shown" if len(self) > SHOWN_ROWS else ""
        return f"lazyccd.Collection of {len(self)} file{'s' if len(self) != 1 else ''} in {self.folder}{more}"

    def __repr__(self) -> str:
        """Return what it is, and the first files."""
        return "\n".join([f"<{self._title()}>", *self._shown().pformat(max_lines=-1, max_width=-1)])

    def _repr_html_(self) -> str:
        """Return the first files as HTML."""
        from html import escape

        return f"<p>{escape(self._title())}</p>{self._shown()._repr_html_()}"


def _headers(file: FitsFile | LazyCCDError, name: InputName) -> tuple[str, str]:
    """Return the headers whose values a file has; where both have a keyword the second counts."""
    if isinstance(file, LazyCCDError):
        raise file
    images = images_of(file)
    chosen = find_hdu(file, name.hdu) if name.hdu is not None else (images or list(file.hdus))[0]
    primary = file.hdus[0].header if chosen.index else ""
    # the primary header of a file of several images is about all of them
    several = name.hdu is None and len(images) > 1 and primary
    return (chosen.header, primary) if several else (primary, chosen.header)


def _matches(value: Any, wanted: Any) -> bool:
    """Return whether a header has what is wanted."""
    if isinstance(wanted, list | tuple | set | frozenset | np.ndarray):
        return any(_matches(value, item) for item in wanted)
    missing = value is None or (isinstance(value, str) and not value)
    if wanted is None or missing:
        return wanted is None and missing
    if callable(wanted):
        return bool(wanted(value))
    if isinstance(wanted, str):
        text, pattern = str(value).lower(), wanted.strip().lower()
        # 30 and 30.0 are one exposure time to an observer
        same = not isinstance(value, str | bool) and find_number(pattern) == value
        return same or text.strip() == pattern or fnmatch.fnmatchcase(text, pattern)
    # T is 1 to Python, and a number in quotes is a number to an observer
    if isinstance(wanted, bool | np.bool_) or isinstance(value, bool):
        return isinstance(wanted, bool | np.bool_) and isinstance(value, bool) and value == bool(wanted)
    return bool((find_number(value) if isinstance(value, str) else value) == wanted)


def _order(value: Any) -> tuple[int, Any]:
    """Return what a value is sorted by: numbers, then text, then those without a value."""
    if value is None:
        return 2, ""
    return (0, value) if isinstance(value, int | float) else (1, str(value))

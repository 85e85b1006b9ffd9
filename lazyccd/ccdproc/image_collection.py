"""Collections of FITS files, chosen by what their headers say."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning

from lazyccd.io.fits.header_table import Ext, Headers, summarise

logger = logging.getLogger(__name__)

__all__ = ["ImageFileCollection"]

SUFFIXES = ("fit", "fits", "fts")
COMPRESSIONS = ("gz", "bz2", "Z", "zip", "fz")
"""Ends of the names of FITS files."""

MAGIC = b"SIMPLE  ="
"""How a FITS file begins."""


class ImageFileCollection:
    """FITS files of a folder, or files of these names, and a table of their headers.

    Parameters
    ----------
    location
        The folder. Names of files are relative to it.
    keywords
        Keywords to put into the table; all (``"*"``) by default.
    find_fits_by_reading
        Look for FITS files by how they begin, not by their names.
    filenames
        Names of files; all FITS files of the folder by default.
    glob_include, glob_exclude
        Patterns of the names to keep and to leave out.
    ext
        The HDU.
    """

    def __init__(
        self,
        location: Any = None,
        keywords: Any = None,
        find_fits_by_reading: bool = False,
        filenames: Any = None,
        glob_include: str | None = None,
        glob_exclude: str | None = None,
        ext: Ext = 0,
    ) -> None:
        self._location = "" if location is None else location
        self._find_fits_by_reading = find_fits_by_reading
        self._filenames = [filenames] if isinstance(filenames, str) else filenames
        self._glob_include = glob_include
        self._glob_exclude = glob_exclude
        self._has_default_keywords = keywords is None or keywords == "*"
        self._headers = Headers(ext)
        self._wanted: list[str] = []
        self._summary: Any = []
        self._files = self._get_files()
        if not self._files:
            warnings.warn("no FITS files in the collection.", AstropyUserWarning, stacklevel=2)
        self.keywords = "*" if keywords is None else keywords

    def __repr__(self) -> str:
        """Return the call that makes the collection."""
        names = ("location", "keywords", "filenames", "glob_include", "glob_exclude", "ext")
        keywords = None if self._has_default_keywords else self.keywords[1:]
        values = (self.location, keywords, self._filenames, self.glob_include, self.glob_exclude, self.ext)
        defaults = (None, None, None, None, None, 0)
        shown = [f"{n}={v!r}" for n, v, default in zip(names, values, defaults, strict=True) if v != default]
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def location(self) -> Any:
        """The folder, as it was given: scripts go on with a path where they gave one."""
        return self._location

    @property
    def ext(self) -> Ext:
        """The HDU."""
        return self._headers.ext

    @property
    def glob_include(self) -> str | None:
        """Pattern of the names to keep."""
        return self._glob_include

    @property
    def glob_exclude(self) -> str | None:
        """Pattern of the names to leave out."""
        return self._glob_exclude

    @property
    def files(self) -> list[str]:
        """Names of the files."""
        return self._files

    @property
    def summary(self) -> Any:
        """The table of headers, masked where a file has no such keyword; None without files."""
        return self._summary if self._files else None

    @property
    def keywords(self) -> list[str]:
        """Names of the table's columns."""
        return list(self._summary.colnames) if isinstance(self._summary, Table) and self._files else []

    @keywords.setter
    def keywords(self, keywords: Any) -> None:
        self._wanted = [keywords] if isinstance(keywords, str) else list(keywords or [])
        known = self.keywords
        if keywords is None or not self._files:
            self._summary = []
        elif known and set(self._wanted) <= set(known):
            self._summary.keep_columns(["file", *(name for name in known if name in self._wanted and name != "file")])
        elif self._wanted:
            self._summary = self._fits_summary(self._wanted)

    @keywords.deleter
    def keywords(self) -> None:
        self.keywords = None

    def _fits_summary(self, header_keywords: Any) -> Table:
        """Return the table of headers with these keywords."""
        return summarise(self._headers.read({file: self._path(file) for file in self._files}), header_keywords)

    def _path(self, file: str) -> str:
        """Return the path of a file of the collection."""
        return os.path.join(self.location, file)

    def _paths(self) -> list[str]:
        """Return the paths of all files in the table."""
        return [self._path(str(file)) for file in self.summary["file"]]

    def _get_files(self) -> list[str]:
        """Return the names of the files that belong to the collection."""
        if self._filenames is not None:
            files = [os.fspath(name) for name in self._filenames]
        elif not self.location:
            files = []
        else:
            files = self._fits_files_in_directory()
        if self.glob_include is not None:
            files = [file for file in files if fnmatch.fnmatch(os.path.basename(file), self.glob_include)]
        if self.glob_exclude is not None:
            files = [file for file in files if not fnmatch.fnmatch(os.path.basename(file), self.glob_exclude)]
        return files

    def _fits_files_in_directory(self, extensions: Any = None, compressed: bool = True) -> list[str]:
        """Return the names of the FITS files in the folder, in alphabetical order."""
        names = sorted(os.listdir(self.location))
        if self._find_fits_by_reading:
            return [name for name in names if os.path.isfile(self._path(name)) and _begins_like_fits(self._path(name))]
        plain = tuple(f".{suffix}" for suffix in extensions or SUFFIXES)
        packed = tuple(f"{suffix}.{end}" for suffix in plain for end in COMPRESSIONS) if compressed else ()
        return [name for name in names if name.endswith(plain + packed)]

    def values(self, keyword: str, unique: bool = False) -> list[Any]:
        """Return the values of a keyword, None where a file has none.

        Parameters
        ----------
        keyword
            A column of the table.
        unique
            Give each value once.
        """
        if keyword not in self.keywords:
            raise ValueError(f"keyword {keyword} is not in the current summary")
        values = self.summary[keyword].tolist()
        return list(set(values)) if unique else values

    def sort(self, keys: Any) -> None:
        """Sort files and table.

        Parameters
        ----------
        keys
            One or more columns.
        """
        if not keys:
            raise ValueError("keys must be given to sort by.")
        self._summary.sort(keys)
        self._files = [str(file) for file in self._summary["file"]]

    def refresh(self) -> None:
        """Look for files again, and read the headers of those that are new or have changed."""
        self._files = self._get_files()
        self._summary = self._fits_summary(self._wanted) if self._wanted and self._files else []

    def files_filtered(self, regex_match: bool = False, include_path: bool = False, **kwd: Any) -> Any:
        """Return the names of the files with these values.

        Parameters
        ----------
        regex_match
            Search text by regular expressions; else it must be equal but for its case.
        include_path
            Return whole paths, in a list.
        **kwd
            Values by keyword; ``"*"`` is any value, None is none.
        """
        if self.summary is None or not isinstance(self.summary, Table):
            return []
        files = self.summary["file"][self._chosen(kwd, regex=regex_match)].compressed()
        return [self._path(str(file)) for file in files] if include_path else files

    def _chosen(self, values: dict[str, Any], *, regex: bool) -> np.ndarray[Any, Any]:
        """Return which rows of the table have these values."""
        columns = {name.lower(): name for name in self.keywords}
        unknown = [name for name in values if name.lower() not in columns]
        more = self._fits_summary(unknown) if unknown else Table()
        files = {str(file): row for row, file in enumerate(more["file"])} if unknown else {}
        chosen = np.ones(len(self.summary), bool)
        for name, value in values.items():
            if name in unknown:
                # the table may have been sorted, or have lost rows
                column = more[name][[files[str(file)] for file in self.summary["file"]]]
            else:
                column = self.summary[columns[name.lower()]]
            chosen &= _matches(column, value, regex=regex)
        return chosen

    def filter(self, **kwd: Any) -> ImageFileCollection:
        """Return a collection of the files with these values.

        Parameters
        ----------
        **kwd
            As of `files_filtered`.
        """
        files = self.files_filtered(include_path=True, **kwd)
        chosen = type(self)(filenames=files, keywords=[], ext=self.ext)
        # no header is read twice
        chosen._headers, chosen.keywords = self._headers, self.keywords
        return chosen

    def _generator(
        self,
        return_type: str,
        save_with_name: str = "",
        save_location: str = "",
        overwrite: bool = False,
        do_not_scale_image_data: bool = True,
        return_fname: bool = False,
        ccd_kwargs: dict[str, Any] | None = None,
        **kwd: Any,
    ) -> Iterator[Any]:
        """Yield what is asked for of each chosen file, and save the file afterwards if asked to."""
        if return_type not in _READERS:
            raise ValueError(f"no generator for {return_type}")
        if "clobber" in kwd:
            overwrite = _clobber(kwd)
        names = self.files_filtered(**kwd)
        for path in [self._path(str(name)) for name in names]:
            target = _target(path, save_with_name, save_location, overwrite=overwrite)
            # a file that is mapped cannot be overwritten
            options = {"do_not_scale_image_data": do_not_scale_image_data, "memmap": False if target else None}
            if return_type == "ccd":
                item = CCDData.read(path, **({"hdu": self.ext} | (ccd_kwargs or {})))
            else:
                # the file is closed again before anybody sees the item: scripts keep items, and overwrite files
                with fits.open(path, **options) as hdus:
                    item = _READERS[return_type](hdus[self.ext])
            yield (item, os.path.basename(path)) if return_fname else item
            if target and return_type != "ccd":
                with fits.open(path, **options) as hdus:
                    _WRITERS[return_type](hdus, hdus.index_of(self.ext), item)
                    _save(hdus, target, overwrite=overwrite)

    def headers(self, do_not_scale_image_data: bool = True, **kwd: Any) -> Iterator[Any]:
        """Yield the headers of the chosen files.

        Parameters
        ----------
        do_not_scale_image_data
            Leave pixels as they are stored.
        **kwd
            ``save_with_name``, ``save_location`` and ``overwrite`` say where to save what was changed, ``return_fname``
            asks for pairs with the names; the others are those of `files_filtered`.
        """
        return self._generator("header", do_not_scale_image_data=do_not_scale_image_data, **kwd)

    def hdus(self, do_not_scale_image_data: bool = False, **kwd: Any) -> Iterator[Any]:
        """Yield the HDUs of the chosen files; arguments as of `headers`."""
        return self._generator("hdu", do_not_scale_image_data=do_not_scale_image_data, **kwd)

    def data(self, do_not_scale_image_data: bool = False, **kwd: Any) -> Iterator[Any]:
        """Yield the pixels of the chosen files; arguments as of `headers`."""
        return self._generator("data", do_not_scale_image_data=do_not_scale_image_data, **kwd)

    def ccds(self, ccd_kwargs: dict[str, Any] | None = None, **kwd: Any) -> Iterator[Any]:
        """Yield the chosen files as CCDData, which are not saved.

        Parameters
        ----------
        ccd_kwargs
            For `CCDData.read`, such as ``{"unit": "adu"}``.
        **kwd
            ``return_fname`` and values by keyword, as of `headers`.
        """
        if ("clobber" in kwd and _clobber(kwd)) or kwd.get("overwrite"):
            raise NotImplementedError("overwrite=True is not supported for CCDs.")
        return self._generator("ccd", ccd_kwargs=ccd_kwargs, **kwd)


_READERS: dict[str, Any] = {
    "header": lambda hdu: hdu.header,
    "hdu": lambda hdu: hdu.copy(),  # which has its pixels
    "data": lambda hdu: hdu.data,
    "ccd": None,
}
"""What each generator takes of an HDU; CCDData are read from files."""

_WRITERS: dict[str, Any] = {
    "header": lambda hdus, ext, header: setattr(hdus[ext], "header", header),
    "hdu": lambda hdus, ext, hdu: hdus.__setitem__(ext, hdu),
    "data": lambda hdus, ext, data: setattr(hdus[ext], "data", data),
}
"""How what a generator took is put into the file that is saved."""


def _clobber(kwd: dict[str, Any]) -> bool:
    """Return the value of the old name of ``overwrite``, and warn."""
    warnings.warn("clobber is deprecated; use overwrite instead.", DeprecationWarning, stacklevel=3)
    return bool(kwd.pop("clobber"))


def _begins_like_fits(path: str) -> bool:
    """Return whether a file begins as FITS files do."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _matches(column: Any, value: Any, *, regex: bool) -> np.ndarray[Any, Any]:
    """Return where a column has a value."""
    present = ~np.ma.getmaskarray(column)
    if value is None:
        return ~present
    if isinstance(value, str) and value == "*":
        return present
    if not isinstance(value, str):
        same = [bool(here and item == value) for here, item in zip(present, column, strict=True)]
        return np.array(same, bool)
    pattern = re.compile(value if regex else re.escape(value), re.IGNORECASE)
    match = pattern.search if regex else pattern.fullmatch
    found = [bool(here and isinstance(item, str) and match(item)) for here, item in zip(present, column, strict=True)]
    return np.array(found, bool)


def _target(path: str, with_name: str, location: str, *, overwrite: bool) -> str:
    """Return where a file is saved; nowhere ("") if it is not to be."""
    if not (with_name or location or overwrite):
        return ""
    base, end = os.path.splitext(os.path.basename(path))
    target = os.path.join(location or os.path.dirname(path), f"{base}{with_name}{end}")
    return target if target != path or overwrite else ""


def _save(hdus: fits.HDUList, path: str, *, overwrite: bool) -> None:
    """Write a file; log why if it cannot be."""
    try:
        hdus.writeto(path, overwrite=overwrite)
    except OSError:
        logger.error("error writing file %s", path)  # noqa: TRY400 - scripts that catch the error need no traceback
        raise

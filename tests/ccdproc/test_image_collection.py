"""Headers of many files become the table that ccdproc makes, by lazyccd's scanner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ccdproc
import numpy as np
import pytest
from astropy.io import fits

from lazyccd.ccdproc import ImageFileCollection
from lazyccd.io.fits.header_table import parse_cards

KINDS = ("BIAS", "Dark Frame", "FLAT", "LIGHT")


def header(number: int) -> fits.Header:
    """Return a header with cards of every kind, of which some are absent in other files."""
    cards = fits.Header({"EXPTIME": number / 2, "IMAGETYP": KINDS[number % 4], "FILTER": "R" if number % 3 else "V"})
    cards["SHUTTER"], cards["COUNT"], cards["BLANKED"] = number % 2 == 0, number, None
    cards["MIXED"] = 5 if number % 2 else "five"
    if number % 5 == 0:
        cards["OBJECT"] = "M 31"
    if number % 4 == 1:
        cards["HIERARCH ESO DET CHIP"] = "chip"
        cards["LONGSTR"] = "it's " + "long " * 30
    cards["HISTORY"], cards["COMMENT"] = "first", "hello"
    cards["HISTORY"] = "second"
    return cards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write 12 files, one of them compressed by tiles and one that is no FITS file."""
    for number in range(12):
        pixels = np.full((4, 5), number, np.uint16)
        fits.PrimaryHDU(pixels, header(number)).writeto(tmp_path / f"f{number:02d}.fits")
    fits.CompImageHDU(np.ones((8, 8), np.float32), header(3)).writeto(tmp_path / "tiles.fits.fz")
    (tmp_path / "broken.fit").write_text("not FITS")
    return tmp_path


@pytest.mark.parametrize("keywords", [None, ["imagetyp", "EXPTIME", "nokey"], ["*", "Other"]])
@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
def test_the_table_is_that_of_ccdproc(folder: Path, keywords: Any) -> None:
    """Columns, their types, values and masks are equal."""
    ours, theirs = (each(folder, keywords=keywords) for each in (ImageFileCollection, ccdproc.ImageFileCollection))
    assert ours.summary.colnames == theirs.summary.colnames
    assert "broken.fit" not in ours.summary["file"]
    for name in ours.summary.colnames:
        mine, other = ours.summary[name], theirs.summary[name]
        assert mine.dtype == other.dtype, name
        assert mine.tolist() == other.tolist(), name


FILTERS: list[dict[str, Any]] = [
    {"imagetyp": "bias"},
    {"IMAGETYP": "dark frame", "filter": "R"},
    {"exptime": 3},
    {"object": None},
    {"object": "*", "filter": "v"},
    {"object": ""},
    {"mixed": 5},
    {"shutter": True},
    {"nokey": None},
    {"nokey": "x"},
    {"regex_match": True, "imagetyp": "^dark|bias"},
    {"imagetyp": "dark"},
    {"eso det chip": "CHIP"},
    {"include_path": True, "file": "f03.fits"},
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_filters_are_those_of_ccdproc(folder: Path, wanted: dict[str, Any]) -> None:
    """The same files are chosen."""
    ours, theirs = (
        [str(name) for name in each(folder).files_filtered(**wanted)]
        for each in (ImageFileCollection, ccdproc.ImageFileCollection)
    )
    assert ours == theirs


def test_headers_are_read_again_where_files_changed(folder: Path) -> None:
    """A refresh reads the file that changed and the one that is new, and forgets the one that is gone."""
    collection = ImageFileCollection(folder, glob_include="f*.fits")
    fits.setval(folder / "f01.fits", "FILTER", value="H-alpha")
    fits.PrimaryHDU(np.zeros((2, 2)), header(20)).writeto(folder / "f20.fits")
    (folder / "f00.fits").unlink()
    known = dict(collection._headers._known)
    collection.refresh()
    again = {Path(path).name for path, read in collection._headers._known.items() if read is not known.get(path)}
    assert again == {"f01.fits", "f20.fits"}
    assert list(collection.files_filtered(filter="h-ALPHA")) == ["f01.fits"]
    assert "f00.fits" not in collection.files
    known = dict(collection._headers._known)
    assert len(collection.filter(filter="r").files) == 8
    assert all(read is known[path] for path, read in collection._headers._known.items())


def test_changed_headers_are_saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Changes of headers and pixels go into other files, or into the same; an existing file is not overwritten."""
    collection = ImageFileCollection(folder, filenames=["f01.fits", "f02.fits"])
    assert collection.location is folder
    other = tmp_path_factory.mktemp("other")
    for pixels in collection.data(save_location=str(other), save_with_name="_new"):
        pixels += 100
    assert [fits.getdata(other / f"f0{n}_new.fits")[0, 0] for n in (1, 2)] == [101, 102]
    for cards, name in collection.headers(overwrite=True, return_fname=True, filter="R"):
        cards["NOTE"] = name
    assert fits.getval(folder / "f02.fits", "NOTE") == "f02.fits"
    assert fits.getdata(folder / "f02.fits").dtype.name == "uint16"
    with pytest.raises(OSError, match="exists"):
        list(collection.headers(save_location=str(other), save_with_name="_new"))


@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
@pytest.mark.parametrize("each", [ImageFileCollection, ccdproc.ImageFileCollection])
def test_what_generators_give_outlives_them(folder: Path, each: Any) -> None:
    """HDUs and pixels may be kept, and their files overwritten or removed, while the others are still to come."""
    collection = each(folder, glob_include="f*.fits")
    hdus, pixels = [], []
    for (hdu, name), data in zip(collection.hdus(return_fname=True), collection.data(), strict=True):
        hdus.append(hdu)
        pixels.append(data)
        (folder / name).unlink()
        hdu.writeto(folder / name)
    assert [hdu.data[0, 0] for hdu in hdus] == [data[0, 0] for data in pixels] == list(range(12))
    assert fits.getval(folder / "f02.fits", "COUNT") == 2


@pytest.mark.parametrize("each", [ImageFileCollection, ccdproc.ImageFileCollection])
def test_names_are_those_of_files_in_their_folders(
    folder: Path, each: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Generators give names without folders, also of chosen collections; names that are filtered print as an array."""
    monkeypatch.chdir(folder)
    chosen = each(".", glob_include="f*.fits").filter(imagetyp="BIAS")
    names = [name for _, name in chosen.ccds(return_fname=True, ccd_kwargs={"unit": "adu"})]
    assert names == ["f00.fits", "f04.fits", "f08.fits"]
    print(each(".").files_filtered(imagetyp="BIAS"))
    assert capsys.readouterr().out == "['f00.fits' 'f04.fits' 'f08.fits']\n"


@pytest.mark.parametrize("each", [ImageFileCollection, ccdproc.ImageFileCollection])
def test_the_own_folder_is_no_place_to_save_in(folder: Path, each: Any) -> None:
    """Nothing is written over a file unless that is asked for."""
    collection = each(folder, glob_include="f*.fits")
    for head in collection.headers(save_location=str(folder)):
        head["EDITED"] = True
    assert "EDITED" not in fits.getheader(folder / "f03.fits")
    for data in collection.data(overwrite=True, count=3):
        data[:] = 77
    assert fits.getdata(folder / "f03.fits")[0, 0] == 77


@pytest.mark.parametrize("number", range(6))
def test_cards_are_parsed_as_by_astropy(number: int) -> None:
    """Keywords and values are those of a header of astropy."""
    cards = header(number)
    text = cards.tostring(endcard=False, padding=False)
    ((_, columns),) = parse_cards(["\n".join(text[i : i + 80] for i in range(0, len(text), 80))])
    parsed = [None if card is None else (card[0], card[1][0]) for card in columns]
    assert str(parsed) == str(list(fits.Header.fromstring(text).items()))


def test_odd_cards_are_left_to_astropy() -> None:
    """What is not plain FITS has no fast way, so that astropy warns of it."""
    for text in ("TELESCOP= 'a quote that is missing", "lower   =                    1"):
        assert list(parse_cards([text])) == [([0], [None])]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Write three files with text and numbers for one keyword, of which one has a keyword twice."""
    rows = [("R", 5.0, True), (3, "5.0", 1), ("V", 60.0, 0)]
    for number, (band, exposure, shutter) in enumerate(rows):
        cards = [
            ("FILTER", band),
            ("EXPTIME", exposure),
            ("SHUTTER", shutter),
            *([("FILTER", "I")] if number == 2 else []),
        ]
        fits.PrimaryHDU(np.ones((3, 3)), fits.Header(cards)).writeto(tmp_path / f"{number}.fits")
    return tmp_path


@pytest.mark.filterwarnings("ignore:Header from file:UserWarning")
def test_text_and_numbers_of_a_keyword_are_text(mixed: Path) -> None:
    """A keyword that all files have, as text and as numbers, is found as text, and not as a number."""
    ours, theirs = (package(mixed) for package in (ImageFileCollection, ccdproc.ImageFileCollection))
    for name in ("filter", "exptime", "shutter"):
        assert ours.summary[name].dtype == theirs.summary[name].dtype
        assert ours.summary[name].tolist() == theirs.summary[name].tolist()
    for values in ({"exptime": 5}, {"exptime": "5.0"}, {"filter": "3"}, {"filter": 3}, {"shutter": 1}):
        assert list(ours.files_filtered(**values)) == list(theirs.files_filtered(**values)), values
    assert list(ours.files_filtered(filter="3")) == ["1.fits"]


def test_a_keyword_that_occurs_twice_is_warned_of_with_the_path(mixed: Path) -> None:
    """The warning is ccdproc's and tells which file it is about."""
    texts = []
    for package in (ImageFileCollection, ccdproc.ImageFileCollection):
        with pytest.warns(UserWarning, match="multiple entries") as caught:
            package(mixed)
        texts.append({str(each.message) for each in caught})
    assert texts[0] == texts[1]


@pytest.mark.filterwarnings("ignore:Header from file:UserWarning")
@pytest.mark.parametrize(
    "given", [{}, {"keywords": []}, {"keywords": ["filter"]}, {"glob_include": "0*", "find_fits_by_reading": True}]
)
def test_a_collection_is_shown_as_by_ccdproc(mixed: Path, given: dict[str, Any]) -> None:
    """Its text is the call that makes it, an empty list of keywords included."""
    assert repr(ImageFileCollection(mixed, **given)) == repr(ccdproc.ImageFileCollection(mixed, **given))


@pytest.mark.filterwarnings("ignore:Header from file:UserWarning")
def test_a_file_in_the_way_is_logged_as_by_ccdproc(
    mixed: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A script that catches the error has one line in its log, without a traceback."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "0.fits").write_text("in the way")
    for package in (ImageFileCollection, ccdproc.ImageFileCollection):
        with pytest.raises(OSError, match="already exists"):
            list(package(mixed).headers(save_location=str(folder)))
    messages = [(record.getMessage(), record.exc_info) for record in caplog.records]
    assert len(messages) == 2
    assert messages[0] == messages[1] == (f"error writing file {folder / '0.fits'}", None)

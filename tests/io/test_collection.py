"""Collections choose files by their headers, share one scan, and keep headers in a cache that is never wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import FormatError, KeywordError, MissingFileError, ParameterError
from lazyccd.io.fits import header_cache
from lazyccd.io.fits.header_table import parse_cards, readable_values
from lazyccd.io.fits.scan import FitsFile, scan_fits
from lazyccd.testing.asserts import raise_if_computes

LONG_AGO = 1_600_000_000_123_456_789


def age(path: Path, by: int = 0) -> None:
    """Give a file a time of change that is long past: younger ones are not kept."""
    os.utime(path, ns=(LONG_AGO + by, LONG_AGO + by))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of headers of this test."""
    folder = tmp_path_factory.mktemp("cache") / "headers-0"
    folder.mkdir()
    monkeypatch.setattr(header_cache, "_cache_folder", lambda: folder)
    return folder


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of files whose headers are read."""
    names: list[str] = []

    def counted(path: str, **how: Any) -> FitsFile:
        names.append(os.path.basename(path))
        return scan_fits(path, **how)

    monkeypatch.setattr(header_cache, "scan_fits", counted)
    return names


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """Write twelve frames of three filters and two exposure times, and return their folder."""
    folder = tmp_path / "night"
    folder.mkdir()
    for i in range(12):
        header = fits.Header(
            {"FILTER": "BVR"[i % 3], "EXPTIME": 10.0 * (1 + i % 2), "DATE-OBS": f"2026-01-{i + 1:02d}"}
        )
        header["OBJECT"] = "M 31" if i % 4 else "NGC 7000"
        header["FLAG"] = i > 6
        if i == 5:
            del header["OBJECT"]
        fits.writeto(folder / f"f{i:02d}.fits", np.full((4, 6), i, np.uint16), header)
        age(folder / f"f{i:02d}.fits")
    return folder


def numbers(collection: lazyccd.Collection) -> list[int]:
    """Return the numbers in the names of files."""
    return [int(os.path.basename(name)[1:3]) for name in collection]


FILTERS: dict[str, tuple[dict[str, Any], Callable[[int], bool]]] = {
    "text": ({"filter": "b"}, lambda i: i % 3 == 0),
    "a number": ({"EXPTIME": 20}, lambda i: i % 2 == 1),
    "a number as text": ({"exptime": "20"}, lambda i: i % 2 == 1),
    "any number of an array": ({"exptime": np.array([20, 40])}, lambda i: i % 2 == 1),
    "a flag": ({"flag": True}, lambda i: i > 6),
    "a flag of NumPy": ({"flag": np.False_}, lambda i: i <= 6),
    "a flag as a number": ({"flag": 1}, lambda _: False),
    "two": ({"filter": "V", "exptime": 10.0}, lambda i: i % 3 == 1 and i % 2 == 0),
    "any of": ({"filter": ["V", "R"]}, lambda i: i % 3 > 0),
    "wildcards": ({"object": "ngc*"}, lambda i: i % 4 == 0),
    "any value": ({"object": "*"}, lambda i: i != 5),
    "no value": ({"object": None}, lambda i: i == 5),
    "a function": ({"exptime": lambda t: t > 15}, lambda i: i % 2 == 1),
    "a keyword that is no name": ({"date_obs": "2026-01-03"}, lambda i: i == 2),
    "nothing": ({"filter": "I"}, lambda _: False),
}


@pytest.mark.parametrize("case", FILTERS)
def test_filters_choose_what_headers_say(night: Path, case: str, scans: list[str]) -> None:
    """A filter gives the files that have the values, and reads no header again."""
    keywords, wanted = FILTERS[case]
    collection = lazyccd.Collection(night)
    assert not scans, "nothing is read before the first use"
    assert len(collection) == 12
    assert sorted(scans) == sorted(os.listdir(night))
    chosen = collection.filter(**keywords)
    assert numbers(chosen) == [i for i in range(12) if wanted(i)]
    assert len(chosen.frames()) == len(chosen.table) == len(chosen)
    assert len(scans) == 12


def test_frames_are_lazy_and_those_of_open_fits(night: Path) -> None:
    """No pixel is read; header, units and pixels are those of `open_fits`."""
    with raise_if_computes():
        frames = lazyccd.Collection(str(night)).frames(filter="V")
    assert len(frames) == 4
    for frame, i in zip(frames, (1, 4, 7, 10), strict=True):
        other = lazyccd.open_fits(night / f"f{i:02d}.fits")
        assert frame.attrs == other.attrs
        assert frame.identical(other)


def test_groups(night: Path) -> None:
    """Groups come in the order of their values, those without one last, and hold every file once."""
    collection = lazyccd.Collection(f"{night}/*.fits")
    groups = collection.groupby("filter", "EXPTIME")
    assert [key for key, _ in groups] == [(f, t) for f in "BRV" for t in (10.0, 20.0)]
    assert sorted(i for _, group in groups for i in numbers(group)) == list(range(12))
    assert [key for key, _ in collection.groupby("object")] == ["M 31", "NGC 7000", None]
    with pytest.raises(ParameterError, match=r"groupby\(\) needs a keyword"):
        collection.groupby()


def test_functions_take_a_collection(night: Path) -> None:
    """`combine`, `open_many` and `register` take a collection in the place of a list of names."""
    chosen = lazyccd.Collection(night).filter(filter="V", exptime=20)
    assert numbers(chosen) == [1, 7]
    stack = lazyccd.combine(chosen)
    assert stack.ccd.header["NCOMBINE"] == 2
    np.testing.assert_array_equal(stack["data"].values, 4.0)
    assert [float(f["data"].max()) for f in lazyccd.open_many(chosen, unit="electron")] == [1.0, 7.0]


def test_table_and_representation(night: Path) -> None:
    """The table is a masked copy that may be changed, with short names; the representation shows the first files."""
    collection = lazyccd.Collection([night / "f04.fits", night / "f05.fits"])
    table = collection.table
    assert table["file"].tolist() == ["f04.fits", "f05.fits"]
    assert table["filter"].tolist() == ["V", "R"]
    assert table["object"].mask.tolist() == [False, True]
    table.remove_column("filter")
    assert "filter" in collection.table.colnames
    assert repr(collection).startswith(f"<lazyccd.Collection of 2 files in {night}>")
    assert "f05.fits" in repr(collection)
    html = collection._repr_html_()
    assert "<table" in html
    assert "f04.fits" in html


def test_mistakes(night: Path, tmp_path: Path) -> None:
    """A misspelt keyword, a folder without files and a missing file are errors with the way out."""
    collection = lazyccd.Collection(night)
    with pytest.raises(KeywordError, match=r"has the keyword 'exptme'; did you mean 'exptime'\?"):
        collection.filter(exptme=3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="holds no FITS file"):
        len(lazyccd.Collection(tmp_path / "empty"))
    with pytest.raises(MissingFileError, match=r"nowhere\.fits"):
        len(lazyccd.Collection([night / "nowhere.fits"]))


def test_a_bad_file_does_not_hide_the_others(night: Path) -> None:
    """It is left out, with a warning at the caller and its reason."""
    (night / "broken.fits").write_text("no FITS")
    collection = lazyccd.Collection(night)
    with pytest.warns(UserWarning, match=r"left out of the collection: .*broken\.fits begins with") as caught:
        assert len(collection) == 12
    assert caught[0].filename == __file__
    assert list(collection.skipped) == [str(night / "broken.fits")]


def test_trees(tmp_path: Path) -> None:
    """Files of several images open as trees, and `frames` says so; rows have the primary's values, then the first image's."""
    images = [
        fits.ImageHDU(np.full((2, 3), i, np.uint16), fits.Header({"GAIN": 1.5, "FILTER": "x"}), f"A{i}") for i in (1, 2)
    ]
    fits.HDUList([fits.PrimaryHDU(header=fits.Header({"FILTER": "R"})), *images]).writeto(tmp_path / "a.fits")
    collection = lazyccd.Collection(tmp_path)
    assert (collection.table["filter"][0], collection.table["gain"][0]) == ("R", 1.5)
    (tree,) = collection.trees(filter="R")
    assert list(tree.children) == ["A1", "A2"]
    assert tree.identical(lazyccd.open_mef(tmp_path / "a.fits"))
    with pytest.raises(FormatError, match="A1"):
        collection.frames()
    one = lazyccd.Collection(f"{tmp_path}/a.fits[A2]")
    assert one.files == [f"{tmp_path}/a.fits[A2]"]
    assert float(one.frames()[0]["data"].max()) == 2.0
    assert one.table["filter"][0] == "x"


def test_refresh_reads_what_changed(night: Path, scans: list[str]) -> None:
    """New and changed files are read, others are not; files that are gone are forgotten."""
    collection = lazyccd.Collection(night)
    assert len(collection.filter(filter="B")) == 4
    fits.setval(night / "f01.fits", "FILTER", value="B")
    shutil.copy(night / "f00.fits", night / "f12.fits")
    (night / "f03.fits").unlink()
    scans.clear()
    assert len(collection.filter(filter="B")) == 4
    collection.refresh()
    assert sorted(scans) == ["f01.fits", "f12.fits"]
    assert numbers(collection.filter(filter="B")) == [0, 1, 6, 9, 12]


def fresh(folder: Path) -> lazyccd.Collection:
    """Return a collection that knows nothing yet, as that of another process."""
    return lazyccd.Collection(folder)


def test_the_cache_gives_what_the_files_say(night: Path, scans: list[str], shared_data: Path) -> None:
    """Headers from the cache are those of the scanner, for files of all kinds."""
    for i, path in enumerate(sorted(shared_data.rglob("*.fits*"))[:80]):
        shutil.copy(path, night / f"x{i:02d}{''.join(path.suffixes[-2:])}")
    names = [str(path) for path in sorted(night.iterdir())]
    for name in names:
        age(Path(name))
    first = header_cache.scan_many(names, keep_going=True)
    assert len(scans) == len(names)
    scans.clear()
    second = header_cache.scan_many(names, keep_going=True)
    # only whole files are kept
    whole = [f for f in first if isinstance(f, FitsFile) and not f.damaged and not any(h.damage for h in f.hdus)]
    assert len(scans) == len(names) - len(whole)
    assert len(whole) > 40
    for one, other in zip(first, second, strict=True):
        assert str(one) == str(other)
        if isinstance(one, FitsFile):
            assert one == other


@pytest.mark.parametrize("change", ["size", "time", "inode", "gone"])
def test_a_changed_file_is_read_anew(night: Path, scans: list[str], change: str) -> None:
    """Size, time of change and inode tell; a file that is gone is an error."""
    path = night / "f02.fits"
    assert fresh(night).table["filter"][2] == "R"
    scans.clear()
    if change == "size":
        fits.append(path, np.zeros((2, 2)))
        age(path)
    elif change == "time":
        fits.setval(path, "FILTER", value="Z")
        age(path, by=1)
    elif change == "inode":
        other = night / "other"
        shutil.copy(path, other)
        fits.setval(other, "FILTER", value="Z")
        os.replace(other, path)
        age(path)
    else:
        path.unlink()
    collection = fresh(night)
    if change == "gone":
        assert len(collection) == 11
        assert scans == []
    else:
        assert collection.table["filter"][2] == ("R" if change == "size" else "Z")
        assert scans == ["f02.fits"]


def test_files_that_just_changed_are_not_kept(night: Path, scans: list[str]) -> None:
    """Another change within the same tick of the clock would not be noticed."""
    os.utime(night / "f00.fits")
    fresh(night).refresh()
    scans.clear()
    fresh(night).refresh()
    assert scans == ["f00.fits"]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other folder", "no JSON"])
def test_a_damaged_cache_is_rebuilt(night: Path, cache: Path, scans: list[str], damage: str) -> None:
    """It counts as none, and is then written again."""
    fresh(night).refresh()
    (path,) = cache.iterdir()
    good = path.read_bytes()
    if damage == "other folder":
        header_cache._write(path, "/elsewhere", header_cache._read(path, str(night)))
    elif damage == "no JSON":
        path.write_bytes(b"\0\0\0\0")
    else:
        bad = {"cut": good[: len(good) // 2], "bit": good[:99] + bytes([good[99] ^ 1]) + good[100:], "empty": b""}
        path.write_bytes(bad[damage])
    scans.clear()
    assert fresh(night).table["filter"][2] == "R"
    assert len(scans) == 12
    scans.clear()
    fresh(night).refresh()
    assert scans == []


def test_the_cache_is_bounded(night: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those used longest ago go first, those of older code among them."""
    old = cache.parent / "headers-old"
    old.mkdir()
    for i in range(3):
        (old / f"{i}.headers").write_bytes(b"x" * 1000)
        os.utime(old / f"{i}.headers", (i + 1, i + 1))
    monkeypatch.setattr(header_cache, "MOST_BYTES", 2500)
    fresh(night).refresh()
    (mine,) = cache.iterdir()
    assert mine.stat().st_size < 1500
    assert [path.name for path in old.iterdir()] == ["2.headers"]


def test_no_cache_where_none_can_be_written(night: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are then read from the files."""
    monkeypatch.setattr(header_cache, "_cache_folder", lambda: None)
    fresh(night).refresh()
    fresh(night).refresh()
    assert len(scans) == 24


WRITER = """
import sys
from pathlib import Path
from lazyccd.io.fits import header_cache
header_cache._cache_folder = lambda: Path(sys.argv[2])
for turn in range(20):
    names = sorted(str(path) for path in Path(sys.argv[1]).iterdir())[int(sys.argv[3])::2]
    assert all(file.hdus for file in header_cache.scan_many(names))
"""


def test_processes_share_the_cache(night: Path, cache: Path, scans: list[str]) -> None:
    """Two that write at the same time leave a cache that holds, and nothing else."""
    run = [sys.executable, "-c", WRITER, str(night), str(cache)]
    both = [subprocess.Popen([*run, str(i)]) for i in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.suffix for path in cache.iterdir()] == [".headers"]
    assert fresh(night).table["filter"].tolist() == ["B", "V", "R"] * 4
    assert len(scans) <= 6, "what at least one of them kept"


VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True), VALUES, max_size=8), st.data())
def test_values_are_those_of_astropy(values: dict[str, Any], data: st.DataObject) -> None:
    """Cards are parsed without astropy and have its values, whatever astropy writes."""
    header = fits.Header()
    for keyword, value in values.items():
        if keyword not in {"COMMENT", "HISTORY", "CONTINUE", "END"}:
            header[keyword] = value, data.draw(st.sampled_from(["", "a comment", "it's / so"]))
    text = str(header.tostring(sep="\n", endcard=False, padding=False))
    if text:
        ((_, columns),) = parse_cards([text])
        parsed = [(card[0], card[1][0]) for card in columns if card is not None]
        read = list(fits.Header.fromstring(text, sep="\n").items())
        assert parsed == read
        assert [type(value) for _, value in parsed] == [type(value) for _, value in read]
        assert dict(readable_values([("", text)])[0]) == {keyword.lower(): value for keyword, value in read}


LINES = st.sampled_from(
    [
        *(
            f"COUNT   = {number:>20} / how many"
            for number in ("7", "-0.0", "0.0", "1.5E3", "8.0D0", "7 7", "-", "1E", "+.5")
        ),
        "COUNT   = 12                   / left",
        "COUNT   = 123456789012345678901234567890.5 / longer than its field",
        "COUNT   =",
        "COUNT   = 'seven'",
        "COUNT   = 'not closed",
        "OBJECT  = 'it''s'",
        "OBJECT  = 'M 31    '           / galaxy",
        "OBJECT  = 'AXIS.1: 2.0'",
        "HIERARCH ESO DET CHIP = 3",
        "HIERARCH ESO DET GAIN = 1.5",
        "LONGSTR = 'begins &'\nCONTINUE  'goes on'",
        "HISTORY one",
        "HISTORY another",
        "lower   =                    1",
    ]
)


def padded(lines: list[str]) -> str:
    """Return a header with these cards, each of 80 characters."""
    return "\n".join(line.ljust(80) for line in "\n".join(lines).split("\n"))


@given(st.lists(st.lists(LINES, min_size=1, max_size=4).map(padded), min_size=2, max_size=8))
def test_headers_parsed_together_are_those_parsed_alone(texts: list[str]) -> None:
    """Values, their types, their order and what cannot be parsed are the same, whatever other headers there are."""
    found: dict[int, Any] = {}
    for places, cards in parse_cards(texts):
        for row, place in enumerate(places):
            found[place] = [card and (card[0], card[1][row]) for card in cards]
    alone = [[card and (card[0], card[1][0]) for card in next(parse_cards([text]))[1]] for text in texts]
    assert str([found[place] for place in range(len(texts))]) == str(alone)
    rows = readable_values([("", text) for text in texts])
    assert str([dict(row) for row in rows]) == str([dict(readable_values([("", text)])[0]) for text in texts])
    firsts = [texts[-1], *texts[:-1]]
    merged = [{**readable_values([("", one)])[0], **row} for one, row in zip(firsts, rows, strict=True)]
    assert str([dict(row) for row in readable_values(list(zip(firsts, texts, strict=True)))]) == str(merged)


def test_tables_of_headers_of_several_kinds(tmp_path: Path) -> None:
    """Columns come in the order in which keywords occur; values stand in the rows of their files, the others are masked."""
    headers = [{"A": 1, "B": 0.5}, {"C": "x", "A": 2}, {"A": 3, "B": -0.0}, {"C": "y", "A": 4}]
    for i, cards in enumerate(headers):
        fits.writeto(tmp_path / f"{i}.fits", np.zeros((2, 2), np.uint8), fits.Header(cards))
    table = lazyccd.Collection(tmp_path).table
    assert table.colnames[-3:] == ["a", "b", "c"]
    assert [str(table[name].tolist()) for name in "abc"] == [
        "[1, 2, 3, 4]",
        "[0.5, None, -0.0, None]",
        "[None, 'x', None, 'y']",
    ]
    assert table["a"].dtype.kind == "i"


def test_the_face_of_ccdproc_uses_the_same_cache(night: Path, scans: list[str]) -> None:
    """What a collection kept serves ImageFileCollection, and `collect` of `lazyccd reduce`."""
    from lazyccd.batch.collect import collect
    from lazyccd.ccdproc import ImageFileCollection

    fresh(night).refresh()
    scans.clear()
    assert ImageFileCollection(night).summary["filter"].tolist() == ["B", "V", "R"] * 4
    assert len(collect(str(night)).frames) == 12
    assert [float(frame["data"].max()) for frame in lazyccd.open_many(f"{night}/*.fits")] == list(range(12))
    assert scans == []
    assert isinstance(next(ImageFileCollection(night).ccds(ccd_kwargs={"unit": "adu"})), CCDData)


def test_cards_read_in_threads_leave_the_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd cards are read while warnings are errors, which must not stay so, although filters belong to the whole process."""
    read, both = fits.Card.fromstring, threading.Barrier(2)

    def slowly(image: str) -> Any:
        # where both are inside at a time, the filters that the first one found are put back before those of the second
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        time.sleep(0.05 * (image[0] == "B"))
        return read(image)

    monkeypatch.setattr(fits.Card, "fromstring", slowly)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        texts = [f"{key}1   = 'AXIS.1: 2.0'".ljust(80) for key in ("AXIS", "BXIS")]
        list(pool.map(lambda text: list(parse_cards([text])), texts))
    assert list(warnings.filters) == before

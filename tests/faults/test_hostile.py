"""Stores and files that somebody made to do harm: nothing in them is executed, and nothing leaves the output folder."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.batch.make_plan import _word
from lazyccd.errors import FormatError, LazyCCDError
from lazyccd.frame.tree import make_tree
from tests.faults.damage import try_damaged

FRAME = lazyccd.from_ccddata(CCDData(np.arange(600.0).reshape(20, 30), unit="adu"))
TAG = "!!python/object/apply:os.system ['touch executed']"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Go to a folder with a module that makes the file ``executed`` when it is imported; afterwards it must not be there."""
    (tmp_path / "evil.py").write_text("open('executed', 'w').close()\nclass Codec: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "executed").exists()


def objects(document: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects of a JSON document."""
    if isinstance(document, dict):
        yield document
    for value in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from objects(value)


def changed(store: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Change all objects in the metadata of a store, of groups and consolidated."""
    for path in Path(store).rglob("zarr.json"):
        document = json.loads(path.read_text())
        for each in list(objects(document)):
            change(each)
        path.write_text(json.dumps(document))
    return store


@pytest.mark.parametrize("name", ["numcodecs.pickle", "pickle", "evil", "evil.Codec", "evil:Codec", "os"])
@pytest.mark.parametrize("where", ["array", "shard", "index", "keys", "type"])
def test_names_of_codecs_import_nothing(evil: Path, name: str, where: str) -> None:
    """Whatever a codec, a type or the names of chunks are called, it is one of those that are known, or refused."""
    codec = {"name": name, "configuration": {"id": name}}

    def change(array: dict[str, Any]) -> None:
        if array.get("node_type") != "array":
            return
        if where in {"keys", "type"}:
            array["chunk_key_encoding" if where == "keys" else "data_type"] = codec
        elif where == "array" or array["codecs"][0]["name"] != "sharding_indexed":
            array["codecs"] = [codec]
        else:
            array["codecs"][0]["configuration"]["codecs" if where == "shard" else "index_codecs"] = [codec]

    store = changed(str(lazyccd.to_zarr(FRAME, evil / "a.zarr")), change)
    with pytest.raises(FormatError, match=r"a\.zarr"):
        lazyccd.open_zarr(store)["data"].load()


@pytest.mark.parametrize("kind", ["variable_length_bytes", "string", "O", "object", "|O"])
def test_objects_are_no_pixels(evil: Path, kind: str) -> None:
    """Arrays of Python objects are refused."""

    def change(array: dict[str, Any]) -> None:
        if array.get("node_type") == "array":
            array["data_type"] = kind

    store = changed(str(lazyccd.to_zarr(FRAME, evil / "a.zarr")), change)
    with pytest.raises(FormatError, match=r"a\.zarr"):
        lazyccd.open_zarr(store)["data"].load()


def test_texts_are_texts(evil: Path) -> None:
    """What looks like code in a unit, a mask's planes, a header or an attribute is refused or handed on."""
    store = str(lazyccd.to_zarr(FRAME.assign_attrs(note=TAG), evil / "a.zarr"))
    changed(store, lambda group: group.update(header=f"OBJECT  = '{TAG}'") if "header" in group else None)
    opened = lazyccd.open_zarr(store)
    assert (opened.attrs["note"], opened.attrs["header"]) == (TAG, f"OBJECT  = '{TAG}'")
    np.testing.assert_array_equal(opened["data"], FRAME["data"])
    changed(store, lambda attrs: attrs.update(units=TAG) if "units" in attrs else None)
    with pytest.raises(LazyCCDError, match="is not known to astropy"):
        lazyccd.open_zarr(store)


@pytest.mark.parametrize("name", ["../../evil", "/etc", "A/../../evil", "."])
def test_frames_are_in_their_store(evil: Path, name: str) -> None:
    """The names of frames that a store lists do not lead out of it."""
    (evil / "deep").mkdir()
    store = str(lazyccd.to_zarr(make_tree({"A": FRAME}, {}), evil / "deep" / "a.zarr"))
    lazyccd.to_zarr(FRAME, evil / "evil")
    changed(store, lambda ours: ours.update(frames=[name]) if "frames" in ours else None)
    with pytest.raises(LazyCCDError):
        lazyccd.open_zarr(store)


NAMES = ["../../evil", "/evil", "a/../../../evil", "..", "~/evil", "C:\\evil", "-rf", "$(touch executed)"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_extensions_stay_in_the_store(evil: Path, name: str) -> None:
    """An EXTNAME that looks like a path is refused or a name inside the product, and nothing is made beside that."""
    hdu = fits.ImageHDU(np.zeros((4, 5), np.float32), fits.Header({"EXTNAME": name}))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(evil / "in.fits")
    out = evil / "deep" / "er"
    out.mkdir(parents=True)
    before = {path for path in evil.rglob("*") if out not in path.parents}
    try:
        tree = lazyccd.open_mef(evil / "in.fits")
        lazyccd.to_zarr(tree, out / "a.zarr")
        lazyccd.to_fits(tree, out / "a.fits")
    except LazyCCDError:
        pass
    assert {path for path in evil.rglob("*") if out not in path.parents} == before


@given(st.text(max_size=30))
def test_words_of_headers_are_parts_of_names(text: str) -> None:
    """Filters and objects give no separators, no hidden files and nothing that a shell would take for more than a word."""
    word = _word(text)
    assert not set(word) & set("/\\\0\n '\"$`;&|<>*?~:")
    assert not word.startswith((".", "-"))


def raw_header(path: Path, *cards: str, **values: object) -> Path:
    """Write a file of one block of data with any header."""
    numbers = {"SIMPLE": "T", "BITPIX": 16, "NAXIS": 2, "NAXIS1": 10, "NAXIS2": 10} | values
    text = "".join(f"{key:<8}= {value!s:>20}".ljust(80) for key, value in numbers.items())
    text += "".join(card.ljust(80) for card in (*cards, "END"))
    path.write_bytes(text.ljust(-(-len(text) // 2880) * 2880).encode() + bytes(2880))
    return path


@pytest.mark.parametrize(
    ("name", "cards", "values", "message"),
    [
        ("rows", (), {"NAXIS2": 2_000_000_000, "GCOUNT": 0}, "GCOUNT 0 must be at least 1"),
        ("heap", (), {"PCOUNT": -(10**7)}, "PCOUNT -10000000 not negative"),
        ("truncated", (), {"NAXIS2": 2_000_000_000}, "is truncated"),
        ("continued", ("LONGSTR = 'a&'", *(["CONTINUE  'xxxxxxxxxxxxxxxxxxxxxxxxxx&'"] * 100_000)), {}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_headers_cost_what_their_bytes_do(
    tmp_path: Path, name: str, cards: tuple[str, ...], values: dict[str, object], message: str
) -> None:
    """A small file cannot ask for much memory or time; what it says is refused or does no harm."""
    path = raw_header(tmp_path / f"{name}.fits", *cards, **values)
    begun = time.process_time()
    tracemalloc.start()
    try:
        if message:
            with pytest.raises(LazyCCDError, match=message):
                lazyccd.open_fits(path).ccd.add(1 * u.adu)
        else:
            assert lazyccd.open_fits(path).sizes == {"y": 10, "x": 10}
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < 10  # a second, if nothing traces the memory


@pytest.mark.parametrize("unit", ["10**999999999", "(((m**99)**99)**99)**99", "m^123456", "1" * 68])
def test_units_are_not_worked_out_to_the_last_digit(tmp_path: Path, unit: str) -> None:
    """Powers that no unit has are not understood."""
    path = raw_header(tmp_path / "a.fits", BUNIT=f"'{unit}'")
    begun = time.process_time()
    with pytest.warns(UserWarning, match="is not known; taken as dimensionless"):
        lazyccd.open_fits(path)
    assert time.process_time() - begun < 5


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    """A pipe for a file or for a shard is refused at once."""
    os.mkfifo(tmp_path / "a.fits")
    with pytest.raises(LazyCCDError, match=r"a\.fits cannot be read: it is a pipe"):
        lazyccd.open_fits(tmp_path / "a.fits")
    store = lazyccd.to_zarr(FRAME, tmp_path / "a.zarr")
    shard = tmp_path / "a.zarr" / "0" / "data" / "c" / "0" / "0"
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(FormatError, match=r"data/c/0/0 cannot be read: it is a pipe"):
        lazyccd.open_zarr(store).compute()


@pytest.mark.parametrize("form", ["fits", "zarr"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, form: str) -> None:
    """Whatever byte or card is wrong, there are pixels or one of our errors; ``python tests/faults/damage.py`` tries more."""
    assert try_damaged(tmp_path, form, seed=1, count=60) == []

"""``report.html``: what a run has to tell, for eyes; made of a real run, of records without frames, and of a thousand exposures."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from PIL import Image

from lazyccd.batch.html_report import contents, render
from lazyccd.cli.main import main
from lazyccd.testing import Detector, Sky, make_night

NASTY = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a night that was reduced on the command line, with a cut file, and texts that are HTML or control a terminal."""
    folder = tmp_path_factory.mktemp("report")
    make_night(folder / "raw", Detector((96, 128)), Sky(stars=6), biases=3, darks=0, flats=3, lights=2)
    (folder / "raw" / "cut.fits").write_bytes((folder / "raw" / "light007.fits").read_bytes()[:5000])
    (folder / "raw" / "light008.fits").rename(folder / "raw" / "<b>a#1%.fits")
    with fits.open(folder / "raw" / "light007.fits", mode="update") as hdus:
        hdus[0].header["OBJECT"] = NASTY
    result = CliRunner().invoke(main, ["reduce", str(folder / "raw"), "-o", str(folder / "out")])
    assert "report.html" in result.output.replace("\n", ""), result.output
    return folder / "out"


@pytest.fixture(scope="module")
def record(out: Path) -> dict[str, Any]:
    """Return the record of the night."""
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def test_the_report_has_its_parts_and_needs_no_other_file(out: Path, record: dict[str, Any]) -> None:
    """Failures come first, every product has its picture, links lead to files, and nothing is fetched."""
    text = (out / "report.html").read_text()
    page = Page(text)
    ids = [attrs["id"] for attrs in page.all("section")]
    assert ids == [
        "failures",
        "counts",
        "pictures",
        "masters",
        "time",
        "noise",
        "masks",
        "measured",
        "left",
        "timings",
        "how",
    ]
    assert "cut.fits" in page.text[: page.text.index("expected")]
    images = page.all("img")
    assert len(images) == len(record["products"]) + 2  # two lights have the raw frame too
    assert all(str(attrs["src"]).startswith("data:image/jpeg;base64,") for attrs in images)
    links = [str(attrs["href"]) for attrs in page.all("a")]
    files = [link for link in links if not link.startswith("#")]
    assert len(files) == len(images)
    assert all(link.startswith("./pictures/") and (out / unquote(link)).is_file() for link in files)
    assert {link[1:] for link in links if link.startswith("#")} == set(ids)
    assert not re.search(r"(src|href)=\"(https?:)?//", text)
    assert not page.all("script")
    assert not page.all("link")


def test_texts_of_headers_stay_texts(out: Path, record: dict[str, Any]) -> None:
    """HTML in OBJECT or in a file's name is shown as it is; control characters are made visible."""
    page = Page((out / "report.html").read_text())
    assert NASTY in page.text
    assert "<b>a#1%.fits" in page.text
    assert not page.all("b")
    nasty = copy.deepcopy(record)
    nasty["products"][-1] |= {"object": f"\x1b[31m{NASTY}", "name": '"><img src=x onerror=alert(1)>', "reason": NASTY}
    nasty["products"][-1]["picture"] = "../../evil.png"
    nasty["notes"] = ["\x07\x00" + NASTY]
    nasty["options"]["gain"] = NASTY
    text = render(nasty, out)
    assert not set(text) & set(map(chr, range(32))) - {"\n"}
    assert "\u241b[31m" in text
    page = Page(text)
    assert not page.all("script")
    assert all("onerror" not in attrs for attrs in page.all("img"))
    assert not any("evil" in str(attrs) for attrs in page.all("a"))


def test_numbers_are_those_of_the_record(out: Path, record: dict[str, Any]) -> None:
    """Points of charts and shares of planes are those of the products."""
    shown = contents(record, out)
    science = [item for item in record["products"] if item["kind"] == "science"]
    levels = next(chart for chart in shown["charts"] if chart["title"].startswith("Level"))
    assert len(levels["points"]) == len(science) == 2
    for point, item in zip(levels["points"], science, strict=True):
        assert f"{item['level']:.5g}" in point["text"]
    order = np.argsort([item["level"] for item in science])
    assert np.argsort([-point["y"] for point in levels["points"]]).tolist() == order.tolist()
    for row in shown["planes"]:
        shares = [item["planes"].get(row["plane"], 0.0) for item in science]
        assert (row["least"], row["most"]) == (min(shares), max(shares))
    assert {row["name"] for row in shown["existing"]} == {item["name"] for item in shown["masters"]}
    assert all(item["users"] for item in shown["masters"])


def test_nights_without_science_and_without_frames(out: Path, record: dict[str, Any]) -> None:
    """A report is made of calibrations alone, of nothing, and of a run that was stopped."""
    bare = {**record, "products": [item for item in record["products"] if item["kind"] != "science"]}
    page = Page(render(bare, out))
    assert "There is no science exposure." in page.text
    assert len(page.all("img")) == len(bare["products"])
    page = Page(render({**record, "products": [], "frames": [], "measurements": [], "state": "stopped"}, out))
    assert "There is no product." in page.text
    assert "The run has not ended." in page.text
    nothing = {**record, "products": [], "frames": [], "measurements": [], "exit_status": 1, "state": "ended"}
    page = Page(render(nothing, out))
    assert "Nothing was reduced" in page.text
    assert "Something failed" not in page.text
    waiting = copy.deepcopy(record)
    waiting["products"][-1] |= {"status": "WAITING", "path": "", "picture": "", "level": None, "noise_after": None}
    assert "The run did not come to 1 products" in Page(render(waiting, out)).text


def test_pictures_are_read_when_it_is_their_turn(
    out: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing holds those of all products together, and the page has each of them."""
    read: list[Path] = []
    monkeypatch.setattr("lazyccd.batch.html_report._thumbnail", lambda path, _side: read.append(path) or "data:,")
    cards = contents(record, out)["cards"]
    assert not read
    assert [card["name"] for card in cards if card["thumbnail"]]
    assert len(read) >= len(cards) == len(record["products"])


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    """The message names the folder and what to give instead."""
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert f"{tmp_path} has no run.json" in result.output


def test_a_thousand_exposures(out: Path, record: dict[str, Any], tmp_path: Path) -> None:
    """The report of a thousand exposures is quickly made and has less than 30 MB."""
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 200, (220, 220), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "pictures" / "a.png")
    one = next(item for item in record["products"] if item["kind"] == "science")
    frame = next(item for item in record["frames"] if item.get("product") == one["name"])
    products, frames = [], []
    for number in range(1000):
        name = f"light{number:04}.fits"
        products.append({**one, "name": name, "picture": "pictures/a.png"})
        frames.append({**frame, "name": name, "product": name})
    start = time.process_time()
    text = render({**record, "products": products, "frames": frames}, tmp_path)
    assert time.process_time() - start < 10
    assert len(Page(text).all("img")) == 1000
    assert 1e6 < len(text) < 30e6


def test_screenshot(record: dict[str, Any], tmp_path: Path) -> None:
    """In a browser the page is as wide as the window, also a small one, and shows its pictures."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (300, 300), (255, 0, 255)).save(tmp_path / "pictures" / "a.png")
    products = [{**item, "picture": "pictures/a.png"} for item in record["products"]]
    (tmp_path / "report.html").write_text(render({**record, "products": products}, tmp_path))
    for width in (1400, 400):
        target = tmp_path / f"{width}.png"
        command = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={max(width, 500)},2600",
        ]
        flags = ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={target}"]
        # a window is at least 500 wide, so the page is put into a frame of the width
        page = tmp_path / f"{width}.html"
        page.write_text(
            f'<body style="margin:0"><iframe src="report.html" style="border:0;width:{width}px;height:2600px"></iframe>'
        )
        subprocess.run([*command, *flags, f"file://{page}"], check=True, capture_output=True, timeout=100)
        with Image.open(target) as picture:
            shown = np.asarray(picture.convert("RGB")).astype(int)[:, :width]
        paper = (shown == shown[0, 0]).all(axis=2)
        assert 0.4 < paper.mean() < 0.99  # text and pictures on paper, and not an error of the browser
        assert (~paper[:, : width // 2]).any()
        # nothing sticks out: the margin at the right is paper from top to bottom
        assert paper[:, -5:].all()
        assert (abs(shown - (255, 0, 255)).max(axis=2) < 30).mean() > 0.02  # pictures

"""Names of inputs."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from lazyccd.errors import ArgumentTypeError, FormatError, MissingFileError, ParameterError
from lazyccd.io.names import InputName, expand_names, parse_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.fits", InputName("a.fits", None)),
        ("a.fits[0]", InputName("a.fits", 0)),
        ("a.fits[sci]", InputName("a.fits", "SCI")),
        ("night/a.fits[SCI, 2]", InputName("night/a.fits", ("SCI", 2))),
        ("s3://b/a.fits.fz[ccd-1,12]", InputName("s3://b/a.fits.fz", ("CCD-1", 12))),
        ("file:///tmp/a.fits", InputName("/tmp/a.fits", None)),
    ],
)
def test_parse_name(text: str, expected: InputName) -> None:
    """A name is split into the file and the extension."""
    assert parse_name(text) == expected
    if "://" not in text:
        assert parse_name(Path(text)) == expected


@pytest.mark.parametrize("suffix", ["[1:100,1:100]", "[*,5]", "[]", "[SCI,two]", "[1,2]", "[A,1,2]"])
def test_brackets_that_are_no_extension(suffix: str) -> None:
    """A section or nonsense in brackets is refused, with the way out."""
    with pytest.raises(ParameterError, match="must be a number, a name or a name and a version"):
        parse_name("a.fits" + suffix)


def test_brackets_of_the_file_name_itself(tmp_path: Path) -> None:
    """A file that has brackets in its name is taken as it is."""
    path = tmp_path / "a[1]"
    path.touch()
    assert parse_name(path) == InputName(str(path), None)
    assert expand_names(path) == [InputName(str(path), None)]


def test_globs_are_sorted_and_carry_the_extension(tmp_path: Path) -> None:
    """A pattern stands for its matches, each with the extension."""
    for name in ("b.fits", "a.fits", "c.txt"):
        (tmp_path / name).touch()
    found = expand_names(f"{tmp_path}/*.fits[SCI]")
    assert found == [InputName(str(tmp_path / name), "SCI") for name in ("a.fits", "b.fits")]
    with pytest.raises(MissingFileError, match=r"no file matches .*\*\.zip"):
        expand_names(f"{tmp_path}/*.zip")


def test_lists(tmp_path: Path) -> None:
    """A list names files beside it, patterns and URLs, with comments."""
    (tmp_path / "x1.fits").touch()
    (tmp_path / "night.list").write_text("# a night\nx?.fits[2]  # pattern\n\n/data/b.fits\nmemory://c.fits\n")
    assert expand_names([f"@{tmp_path}/night.list", "d.fits"]) == [
        InputName(str(tmp_path / "x1.fits"), 2),
        InputName("/data/b.fits", None),
        InputName("memory://c.fits", None),
        InputName("d.fits", None),
    ]


def test_bad_lists(tmp_path: Path) -> None:
    """A list that is absent, binary, or names lists is refused."""
    with pytest.raises(MissingFileError, match="does not exist"):
        expand_names(f"@{tmp_path}/none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not text"):
        expand_names(f"@{tmp_path}/binary")
    (tmp_path / "nested").write_text("@nested\n")
    with pytest.raises(FormatError, match="must name files only"):
        expand_names(f"@{tmp_path}/nested")
    with pytest.raises(ArgumentTypeError, match="is a int"):
        expand_names([3])  # type: ignore[list-item]


def test_glob_of_a_url() -> None:
    """Patterns work behind URLs."""
    files = fsspec.filesystem("memory")
    for name in ("b", "a"):
        files.pipe_file(f"/read_names/{name}.fits", b"x")
    assert [item.path for item in expand_names("memory://read_names/*.fits")] == [
        "memory:///read_names/a.fits",
        "memory:///read_names/b.fits",
    ]

"""Recipes: every fault is told at its line, none can do harm, and the steps that they state are what is done."""

from __future__ import annotations

import inspect
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from click.testing import CliRunner

import lazyccd
from lazyccd import Recipe, ops
from lazyccd.batch.options import Options
from lazyccd.batch.recipe.document import MOST_BYTES, parse
from lazyccd.batch.recipe.rules import RULES, parameters_of
from lazyccd.batch.run import plan_night
from lazyccd.cli.main import main
from lazyccd.errors import MissingFileError, ParameterError, RecipeError
from lazyccd.testing import Detector, Sky, make_night

Faults = Callable[[str], list[str]]


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """Return a function that writes a recipe, and gives the lines of the error that reading it raises."""

    def read(text: str | bytes) -> list[str]:
        path = tmp_path / "night.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(RecipeError) as error:
            Recipe.read(path)
        first, *others = str(error.value).splitlines()
        assert first.startswith(f"recipe {str(path)!r} has ")
        return [line.strip() for line in others]

    return read


ONE_FAULT = {
    "steps:\n- subtract_overscn": "line 2, steps[0]: 'subtract_overscn' is no step; did you mean 'subtract_overscan'?",
    "steps:\n- median_filter:\n    size: 3\n    sise: 5": (
        "line 4, steps[0].median_filter.sise: is no parameter of median_filter; did you mean 'size'?"
    ),
    "steps:\n- cosmicray_lacosmic: {objlim: '5'}": (
        'line 2, steps[0].cosmicray_lacosmic.objlim: the text "5" must be a number'
    ),
    "steps:\n- subtract_sky: {box: [64, 2.5]}": "line 2, steps[0].subtract_sky.box[1]: 2.5 must be a whole number",
    "steps:\n- subtract_sky: {method: Mesh}": (
        "line 2, steps[0].subtract_sky.method: the text \"Mesh\" must be 'mesh' or 'constant'; did you mean 'mesh'?"
    ),
    "steps:\n- trim_image: {fits_section: [1:10,1:20]}": (
        'line 2, steps[0].trim_image.fits_section: the list ["1:10", "1:20"] must be text; put it in quotes: \'[1:10,1:20]\''
    ),
    "steps:\n- subtract_bias\n- trim_image": (
        "line 3, steps[1]: trim_image stands after subtract_bias and belongs before it; move it up, or write 'order: as listed' "
        "at the top if this is what you want"
    ),
    "steps:\n- trim_image\n- trim_image": "line 3, steps[1]: trim_image stands twice, first as steps[0]; remove one",
    "steps:\n- subtract_fringe": (
        "line 2, steps[0]: subtract_fringe needs fringe, and no rule of a night provides fringe; write subtract_fringe: "
        "{fringe: ...}"
    ),
    "steps:\n- subtract_fringe:\n    scale: 1.0": (
        "line 2, steps[0].subtract_fringe.fringe: is missing, and no rule of a night provides it: name a file, such as fringe: "
        "fringe.fits"
    ),
    "steps:\n- median_filter:\n  size: 3": (
        "line 2, steps[0]: size must be indented below median_filter, by two more blanks"
    ),
    "steps:\n- combine": "line 2, steps[0]: 'combine' is no step: it is no step of single frames",
    "steps:\n- median_filter: {size: -3}": "line 2, steps[0].median_filter.size: ",
    "steps:\n- cosmicray_lacosmic: {cleantype: mean}": "line 2, steps[0].cosmicray_lacosmic.cleantype: ",
    "options:\n  max_level: -1": "line 2, options.max_level: -1 must be 0 or more; correct it",
    "options:\n  readnoise: .nan": (
        "line 2, options.readnoise: 'nan' must be a number; leave it out if it is not known"
    ),
    "steps:\n- flag_saturated: {level: .nan}": (
        "line 2, steps[0].flag_saturated.level: 'nan' must be a number; leave it out if it is not known"
    ),
    "steps:\n- subtract_bias: {on: [science]}": (
        "line 2, steps[0].subtract_bias.on: subtract_bias is done on all frames that need it, so that masters fit them; remove it"
    ),
    "steps:\n- gain_correct: {gain: 1,4}": (
        "line 2, steps[0].gain_correct.4: is no parameter of gain_correct; write numbers with a point, such as 1.4"
    ),
    "steps:\n- subtract: {other: 5 electrons}": (
        "line 2, steps[0].subtract: '5 electrons' is not a number with a unit such as '5 electron'"
    ),
    "outputs: {format: FITS}": (
        "line 1, outputs.format: the text \"FITS\" must be 'fits' or 'zarr'; did you mean 'fits'?"
    ),
    "steps:\n- median_filter\n    size: 3": "line 3: is not YAML: ",
    "steps: []": "line 1, steps: is empty; give at least one, or leave it out",
    "outputs:\n  format: fit": (
        "line 2, outputs.format: the text \"fit\" must be 'fits' or 'zarr'; did you mean 'fits'?"
    ),
    "options: {cosmic_ray: none}": "line 1, options.cosmic_ray: is no key of options; did you mean 'cosmic_rays'?",
    "options: {gain: 1.5}\nsteps:\n- gain_correct: {gain: 1.7}": (
        "line 3, steps[0].gain_correct.gain: is stated by options.gain too; keep one"
    ),
    "options: {calib: ../masters}": (
        "line 1, options.calib: '../masters' leads out of the folder of the recipe; name a file below it or below the night; "
        "give it by --calib ../masters"
    ),
    "steps:\n- divide: {other: /data/flat.fits}": (
        "line 2, steps[0].divide.other: '/data/flat.fits' leads out of the folder of the recipe; name a file below it or below "
        "the night"
    ),
    "options: {flat: f.fits}\nsteps: [trim_image]": (
        "line 1, options.flat: needs the step flat_correct, which is not in steps; add it"
    ),
    "order: checked\norder: as listed": "line 2, order: stands twice, first in line 1",
    "steps:\n\t- trim_image": "line 2: is not YAML: ",
    "steps: [trim_image": "line 1: is not YAML: ",
    "": "is empty; it needs steps:, outputs: or options:, as 'lazyccd recipe NIGHT' prints them",
    "trim_image": 'line 1: the text "trim_image" must be a mapping of keys to values',
}


@pytest.mark.parametrize("text", ONE_FAULT, ids=lambda text: text.replace("\n", " ")[:40])
def test_a_fault_says_where_what_and_how(faults: Faults, text: str) -> None:
    """A line of the error has the line of the file, the key, what was given and what is allowed."""
    found = faults(text)
    expected = ONE_FAULT[text]
    assert found == [expected] or (expected.endswith(": ") and len(found) == 1 and found[0].startswith(expected))


FINE = [
    "[{flag_saturated: {bleed: 60000}}, {grow_mask: {planes: BLEED, radius: 2}}]",
    "[{add_mask: {array: stars.fits, plane: STARS}}, {interpolate_bad_pixels: {bad: STARS}}]",
    "[{subtract: {other: 100 adu}}, gain_correct, {subtract: {other: 100 electron}}, {block_average: {block_size: 200}}]",
    "[{subtract_sky: {box: 512}}, {cosmicray_median: {error_image: 2024_sigma.fits}}, {multiply: {other: 2}}]",
    "[{cosmicray_lacosmic: {readnoise: RDNOISE, gain: 1.2, background: [0, 1]}}]",
    "[{correct_linearity: {table: [[0, 100], [0, 101]], limit: .inf}}, {with_header: {cards: {OBSERVER: me, N: 3}}}]",
]


@pytest.mark.parametrize("steps", FINE)
def test_what_is_right_is_not_refused(tmp_path: Path, steps: str) -> None:
    """Planes that steps make, units by the place of the gain, keywords and files that only the night has: no fault."""
    (tmp_path / "night.yaml").write_text(f"order: as listed\nsteps: {steps}\n")
    assert Recipe.read(tmp_path / "night.yaml").steps


def test_values_that_only_the_night_shows_to_be_wrong(night: Path, tmp_path: Path) -> None:
    """They are told with the recipe's file, line and key; those of the command line as such."""
    recipe = tmp_path / "night.yaml"
    recipe.write_text("options:\n  readnoise: 5\n  overscan: '[1:10'\n")
    with pytest.raises(
        ParameterError, match=r"'\[1:10' of the recipe 'night.yaml', line 3, options.overscan is no section"
    ):
        plan_night(str(night), Options(recipe=str(recipe)))
    with pytest.raises(ParameterError, match=r"'\[1:20' of the command line is no section"):
        plan_night(str(night), Options(recipe=str(recipe), overscan="[1:20"))
    recipe.write_text("steps:\n- gain_correct: {gain: 2}\n")
    fact = plan_night(str(night), Options(recipe=str(recipe))).science[0].facts.gain
    assert (fact.value, fact.source) == (2.0, "recipe 'night.yaml', line 2, steps[0].gain_correct.gain")


def test_all_faults_at_once(faults: Faults) -> None:
    """Nobody mends one fault only to meet the next; they come in the order of the lines."""
    text = "steps:\n- trim_imge\n- cosmicray_lacosmic:\n    sigclp: 4\n    niter: many\n- subtract_bias\nouputs: {}\n"
    found = faults(text)
    assert [line.split(":")[0] for line in found] == [
        "line 2, steps[0]",
        "line 4, steps[1].cosmicray_lacosmic.sigclp",
        "line 5, steps[1].cosmicray_lacosmic.niter",
        "line 6, steps[2]",
        "line 7, ouputs",
    ]


HOSTILE = {
    "python object": (
        "options: !!python/object/apply:os.system [echo hacked]",
        "is not allowed: a recipe is plain data",
    ),
    "own tag": ("steps: !include /etc/passwd", "is not allowed: a recipe is plain data"),
    "bomb": (
        "a: &a [x, x]\n" + "\n".join(f"{n}: &{n} [*{c}, *{c}]" for c, n in zip("abcdefgh", "bcdefghi", strict=True)),
        "alias",
    ),
    "merge": ("outputs: &o {format: zarr}\noptions:\n  <<: *o", "alias"),
    "deep lists": ("[" * (MOST_BYTES - 1), "nested more than"),
    "deep mappings": ("a: {" * 6000, ""),
    "questions": ("? " * 12000, "a key must be text"),
    "many faults": ("steps:\n" + "- trim_imag\n" * 2000, "is no step"),
    "huge": ("a" * (MOST_BYTES + 1), "has more than"),
    "two documents": ("steps: [trim_image]\n---\nsteps: [trim_image]", "a second document"),
    "not UTF-8": (b"steps: [\xff]", "is not UTF-8"),
    "control": (b"steps: [\x00]", "is not YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_second(faults: Faults, name: str) -> None:
    """A file that is no recipe costs less than a second, and makes nothing."""
    faults("steps: [trim_image, trim_image]")  # imports
    text, expected = HOSTILE[name]
    begin = time.process_time()
    found = faults(text)
    assert time.process_time() - begin < 1
    assert any(expected in line for line in found)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A device never ends, so it is not read; a missing file says how to make one."""
    with pytest.raises(RecipeError, match="is not a file"):
        Recipe.read("/dev/zero")
    with pytest.raises(MissingFileError, match=r"'lazyccd recipe NIGHT' prints one"):
        Recipe.read(tmp_path / "none.yaml")


def test_yaml_1_2() -> None:
    """`no` is text, and a number in quotes too; dates stay text, and lines are those of keys."""
    document = parse("a: no\nb: [1e3, 0o17, '5', 2024-01-01]\nc:\n  d: null\n")
    assert document.data == {"a": "no", "b": [1000.0, 15, "5", "2024-01-01"], "c": {"d": None}}
    assert document.lines["c", "d"] == 4


def test_a_key_without_a_value_says_nothing(tmp_path: Path) -> None:
    """An editor leaves ``gain:`` behind: that is no gain of 'None', and no other option either."""
    path = tmp_path / "r.yaml"
    names = ("gain", "camera", "overscan", "calib", "allow_missing", "on_error", "max_level", "force")
    path.write_text("options:\n" + "".join(f"  {name}:\n" for name in names))
    assert Recipe.read(path).options_under(Options(), str(tmp_path)) == Options()
    path.write_text("steps:\n- flag_saturated: {level: }\n- subtract_overscan: {fits_section: }\n")
    assert Recipe.read(path).options_under(Options(), str(tmp_path)).facts == {"trim": "none"}


def test_options_of_the_command_go_first(tmp_path: Path) -> None:
    """Also one that has the value that it has by default."""
    path = tmp_path / "r.yaml"
    path.write_text("options: {on_error: skip, gain: 1.5}\n")
    found = Recipe.read(path).options_under(Options(on_error="raise", gain="stated"), str(tmp_path))
    assert (found.on_error, found.gain) == ("raise", "stated")


def test_every_operation_is_a_step_or_none() -> None:
    """Operations that make a frame of a frame are steps, but for those that say nothing of pixels, or need code or arrays."""
    no_steps = {
        "ccd_process",  # a recipe of its own
        "wcs_project",
        "transform_image",
        "rechunk",
        "settle",
        "with_mask",
        "with_uncertainty",
        "with_unit",
    }
    frames = set()
    for name in ops.__all__:
        function = inspect.unwrap(getattr(ops, name))
        if inspect.isfunction(function):
            first = next(iter(inspect.signature(function).parameters.values()))
            if first.annotation == "xr.Dataset" and inspect.signature(function).return_annotation == "xr.Dataset":
                frames.add(name)
    assert frames - no_steps == set(RULES) - {"assemble", "correct_crosstalk"}


@pytest.mark.parametrize("name", RULES)
def test_parameters_are_those_of_the_signature(name: str) -> None:
    """A recipe can state what the operation takes, with its default, unless it is no plain data or the plan decides it."""
    signature = inspect.signature(inspect.unwrap(getattr(ops, name))).parameters
    found = parameters_of(name)
    assert set(found) <= set(signature)
    for key, parameter in found.items():
        assert parameter.default == signature[key].default
        assert parameter.text
    plain = {key for key, each in signature.items() if each.annotation in {"int", "float", "bool", "str"}}
    assert plain - {"verbose"} - RULES[name].planned <= set(found)


def test_the_same_as_an_object(tmp_path: Path) -> None:
    """A file and the object of the same data are equal in all that they state, and the object's faults have no lines."""
    data: dict[str, Any] = {
        "steps": ["trim_image", {"median_filter": {"size": [3, 5], "on": ["science", "flat"]}}],
        "outputs": {"format": "zarr", "planes": ["mask"]},
        "options": {"gain": 1.5, "allow_missing": ["flat"]},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(data))
    read, made = Recipe.read(tmp_path / "r.yaml"), Recipe(**data)
    assert read.data == made.data == {"order": "checked", "association": {}, **data}
    assert read.steps == made.steps
    with pytest.raises(RecipeError, match=r"has a fault:\n  steps\[0\]: 'trim' is no step"):
        Recipe(steps=["trim"])


def test_the_built_in_recipe_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every night uses is made without pydantic and ruamel.yaml."""
    for name in ("pydantic", "ruamel.yaml", "lazyccd.batch.recipe.schema", "lazyccd.batch.recipe.document"):
        monkeypatch.setitem(sys.modules, name, None)
    assert Recipe().is_built_in
    assert Recipe().levels is not None
    with pytest.raises(ImportError):
        Recipe(steps=["trim_image"])


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small night of one camera with an overscan strip."""
    folder = tmp_path_factory.mktemp("night") / "raw"
    make_night(folder, Detector((128, 160)), Sky(stars=12), biases=3, darks=2, flats=3, lights=1)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all images below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.fits"))}


def run(*words: str | Path) -> str:
    """Run a command, and return what it prints."""
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


@pytest.fixture(scope="module")
def plain(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the products of the night without a recipe."""
    out = tmp_path_factory.mktemp("plain")
    run("reduce", night, "-o", out)
    return out


def test_the_printed_recipe_does_the_same_to_the_byte(night: Path, plain: Path, tmp_path: Path) -> None:
    """What `lazyccd recipe` prints gives the products of no recipe, and is the built-in one."""
    text = run("recipe", night)
    path = tmp_path / "night.yaml"
    path.write_text(text)
    assert Recipe.read(path).is_built_in
    run("reduce", night, "--recipe", path, "-o", tmp_path / "out")
    expected = files_of(plain)
    assert len(expected) == 4
    assert files_of(tmp_path / "out") == expected


def test_every_parameter_that_is_printed_can_be_stated(night: Path, tmp_path: Path) -> None:
    """Taking the # from the parameters of a step gives a recipe that reads, with the defaults that are meant."""
    lines = run("recipe", night).splitlines()[3:]
    assert max(map(len, lines)) <= 108
    stated = [
        line.replace("# ", "", 1) if line.startswith("    # ") and "..." not in line[:34] else line for line in lines
    ]
    path = tmp_path / "night.yaml"
    # Of two ways of averaging the strip only one can be stated.
    path.write_text("\n".join(line for line in stated if not line.startswith(("    median:", "    skip_bleeds:"))))
    step = Recipe.read(path).step("cosmicray_lacosmic")
    assert step is not None
    assert step.parameters["use_uncertainty"] is True
    assert step.parameters["niter"] == 4


def test_steps_are_what_is_done(night: Path, plain: Path, tmp_path: Path) -> None:
    """Steps that are left out or added change the product as the operations do by themselves."""
    steps = ["flag_saturated", "subtract_overscan", "trim_image", "subtract_bias", "create_deviation", "gain_correct"]
    short = lazyccd.reduce(night, tmp_path / "short", recipe=Recipe(steps=steps))
    added = [*steps, {"subtract": {"other": "100 electron"}}, {"median_filter": {"size": [3, 5]}}]
    more = lazyccd.reduce(night, tmp_path / "more", recipe=Recipe(steps=added))
    # What a recipe leaves out, the product does not lack.
    assert [outcome.status for outcome in short.outcomes if outcome.kind == "science"] == ["DONE"]
    (one,), (other,) = ([item.path for item in each.outcomes if item.kind == "science"] for each in (short, more))
    before, after = lazyccd.open_fits(one), lazyccd.open_fits(other)
    expected = ops.median_filter(ops.subtract(before, 100 * u.electron), (3, 5))
    np.testing.assert_array_equal(after["data"].values, expected["data"].values)
    header = fits.getheader(other)
    assert header["LZRECIPE"].startswith("recipe ")
    assert "FLATCOR" not in header
    assert "LZRECIPE" not in fits.getheader(next(plain.glob("*.fits")))


def test_facts_and_masters_of_steps_are_those_of_the_plan(night: Path, tmp_path: Path) -> None:
    """A level or section that a step states is that of all frames, and a file is found beside the recipe or in the night."""
    (tmp_path / "my.yaml").write_text(
        "steps:\n- flag_saturated: {level: 40000}\n- trim_image: {fits_section: '[1:100,1:90]'}\n"
        "- subtract_bias: {master: old/bias.fits}\n- create_deviation: {readnoise: 7}\n- gain_correct: {gain: 1.5}\n"
    )
    with pytest.raises(MissingFileError, match=r"recipe 'my.yaml' names 'old/bias.fits', which is neither in"):
        plan_night(night, Options(recipe=str(tmp_path / "my.yaml")))
    (tmp_path / "old").mkdir()
    pixels = np.full((90, 100), 5.0, np.float32)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu", "IMAGETYP": "bias", "NCOMBINE": 9})).writeto(
        tmp_path / "old" / "bias.fits"
    )
    plan = plan_night(night, Options(recipe=str(tmp_path / "my.yaml"), gain="1.7"))
    facts = plan.science[0].facts
    assert (facts.saturate.value, facts.trim.value, facts.readnoise.value) == (40000, "[1:100,1:90]", 7)
    assert facts.gain.value == 1.7  # the command line is the later word
    assert plan.options.bias == (str(tmp_path / "old" / "bias.fits"),)
    with pytest.raises(
        ParameterError, match=r"--flat needs the step flat_correct, which recipe 'my.yaml' does not have"
    ):
        plan_night(night, Options(recipe=str(tmp_path / "my.yaml"), flat=("f.fits",)))


def test_a_table_remembers_the_recipe(night: Path, tmp_path: Path) -> None:
    """A saved plan names the recipe, whose options count as they are when the table is run."""
    recipe, table = tmp_path / "my.yaml", tmp_path / "night.ecsv"
    recipe.write_text("options: {gain: 1.5}\n")
    run("reduce", night, "--recipe", recipe, "--dry-run", "--save", table)
    recipe.write_text("options: {gain: 1.7}\n")
    assert plan_night(str(table), Options()).science[0].facts.gain.value == 1.7


def test_outputs(night: Path, tmp_path: Path) -> None:
    """Products have the format, planes and compression that are asked for; a format on the command line goes first."""
    recipe = Recipe(
        outputs={"compress": "GZIP_2", "planes": ["mask"], "pictures": False}, options={"cosmic_rays": "none"}
    )
    done = lazyccd.reduce(night, tmp_path / "a", recipe=recipe)
    with fits.open(next((tmp_path / "a").glob("*_red.fits*"))) as file:
        assert {"MASK", "DQ"} == {hdu.name for hdu in file} & {"MASK", "DQ", "UNCERT"}
        assert any(hdu.header.get("ZCMPTYPE") == "GZIP_2" or isinstance(hdu, fits.CompImageHDU) for hdu in file)
    assert not list((tmp_path / "a").rglob("*.png"))
    assert all(outcome.status == "DONE" for outcome in done.outcomes)


def test_cosmic_rays_are_checked_without_a_mask_in_the_product(night: Path, plain: Path, tmp_path: Path) -> None:
    """Hits and stars are counted on what was removed, whatever is written."""
    done = lazyccd.reduce(night, tmp_path / "a", recipe=Recipe(outputs={"planes": ["uncertainty"], "pictures": False}))
    record = json.loads((plain / "run.json").read_text())
    said = [text for text in record["products"][-1]["messages"] if text.startswith("cosmic rays")]
    assert said
    assert ", 0 hits" not in said[0]
    assert [text for text in done.outcomes[-1].messages if text.startswith("cosmic rays")] == said


def test_schema_is_published() -> None:
    """The JSON Schema names every step and its parameters, and is that of the documentation."""
    schema = json.loads(run("recipe", "--schema"))
    names = schema["$defs"]
    assert set(RULES) <= set(names)
    for name in RULES:
        assert set(names[name]["properties"]) >= set(parameters_of(name))
        assert not names[name]["additionalProperties"]


PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "recipes.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_recipes_of_the_page(tmp_path: Path, text: str) -> None:
    """Each recipe of the how-to page reads, and states what is not built in or at least one step."""
    (tmp_path / "night.yaml").write_text(text)
    assert not Recipe.read(tmp_path / "night.yaml").is_built_in


def test_faults_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faulty recipe of the how-to page gives the error that stands below it."""
    text, error = re.search(
        r"has three:\n\n```text\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    ).groups()
    monkeypatch.chdir(tmp_path)
    Path("night.yaml").write_text(text)
    assert run("reduce", ".", "--recipe", "night.yaml", "-o", "OUT") == error


@pytest.fixture(scope="module")
def amplifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two bias files and a frame of the sky, each with two amplifiers of a detector."""
    folder = tmp_path_factory.mktemp("amplifiers")
    rng = np.random.default_rng(3)
    for name, kind, signal in (("b1", "bias", 0.0), ("b2", "bias", 0.0), ("s", "light", 900.0)):
        primary = fits.PrimaryHDU(header=fits.Header({"INSTRUME": "MEFCAM", "IMAGETYP": kind, "EXPTIME": signal / 9}))
        primary.header["DATE-OBS"] = f"2024-03-01T2{len(name)}:00:00"
        hdus = [primary]
        for number in (1, 2):
            pixels = rng.normal(500 * number + signal * number, 4, (40, 60)).round().astype("uint16")
            cards = {"GAIN": 1.0 + number / 2, "RDNOISE": 5.0, "BIASSEC": "[51:60,1:40]", "TRIMSEC": "[1:50,1:40]"}
            cards["DATASEC"] = cards["TRIMSEC"]
            cards["DETSEC"] = ("[1:50,1:40]", "[100:51,1:40]")[number - 1]
            hdus.append(fits.ImageHDU(pixels, fits.Header(cards), name="SCI", ver=number))
        fits.HDUList(hdus).writeto(folder / f"{name}.fits")
    return folder


def test_amplifiers(amplifiers: Path, tmp_path: Path) -> None:
    """Crosstalk sees all amplifiers of a file at once, and steps behind `assemble` whole detectors, as the operations do."""
    coefficients = {"SCI_1": {"SCI_2": 0.01}, "SCI_2": {"SCI_1": 0.02}}
    crosstalk = {"correct_crosstalk": {"coefficients": coefficients}}
    steps = ["trim_image", "subtract_bias", crosstalk, "gain_correct", "assemble", {"median_filter": {"size": 3}}]
    done = lazyccd.reduce(amplifiers, tmp_path, recipe=Recipe(steps=steps), allow_missing=["flat"])
    (product,) = [outcome.path for outcome in done.outcomes if outcome.kind == "science"]
    (bias,) = [outcome.path for outcome in done.outcomes if outcome.kind == "bias"]
    tree = ops.trim_image(lazyccd.open_mef(amplifiers / "s.fits"), "TRIMSEC")
    tree = ops.subtract_bias(tree, lazyccd.open_mef(bias))
    tree = ops.gain_correct(ops.correct_crosstalk(tree, coefficients), "GAIN")
    expected = ops.median_filter(ops.assemble(tree), 3)
    found = next(iter(lazyccd.open_mef(product).ccd.frames.values()))
    assert found.sizes == expected.sizes == {"y": 40, "x": 100}
    np.testing.assert_allclose(found["data"].values, expected["data"].values, rtol=1e-6)
    apart = Recipe(steps=[step for step in steps if step != "assemble"])
    done = lazyccd.reduce(amplifiers, tmp_path / "apart", recipe=apart, allow_missing=["flat"])
    (product,) = [outcome.path for outcome in done.outcomes if outcome.kind == "science"]
    assert len(lazyccd.open_mef(product).ccd.frames) == 2


def test_a_changed_recipe_is_told_by_key_and_both_values(night: Path, tmp_path: Path) -> None:
    """Products of two recipes are not mixed in a folder: the error names what differs; one step of two alike counts too."""
    path, out = tmp_path / "my.yaml", tmp_path / "out"
    text = "steps:\n- trim_image\n- subtract: {other: 5 adu}\n- subtract: {other: 7 adu}\noutputs: {pictures: false}\n"
    path.write_text(text)
    run("reduce", night, "--recipe", path, "-o", out)
    products = files_of(out)
    path.write_text(text.replace("5 adu", "6 adu").replace("trim_image", "subtract_overscan\n- trim_image"))
    said = " ".join(run("reduce", night, "--recipe", path, "-o", out).split())
    assert "recipe steps subtract other was '5 adu' and is '6 adu'" in said
    assert (
        "recipe steps was 'trim_image, subtract, subtract (2)' and is 'subtract_overscan, trim_image, subtract," in said
    )
    assert "--overwrite" in said
    assert files_of(out) == products
    path.write_text(text.replace("false", "true"))
    assert "holds products of another run" not in run("reduce", night, "--recipe", path, "-o", out)

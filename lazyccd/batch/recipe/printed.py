"""Write the recipe of a night as YAML with comments: what each step does to its frames, and which parameters it has."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lazyccd import ops
from lazyccd.batch.exposures import exposures, master_files
from lazyccd.batch.metadata import Fact, value_to_text
from lazyccd.batch.night_plan import FramePlan, NightPlan
from lazyccd.batch.recipe.recipe import Recipe
from lazyccd.batch.recipe.rules import MASTERS, RULES, parameters_of
from lazyccd.batch.recipe.steps import RecipeStep, data_of_levels
from lazyccd.io.resumable.progress import versions

WIDTH = 100
"""Columns of comments."""

FACTS = {
    "flag_saturated": ("saturate",),
    "subtract_overscan": ("overscan",),
    "trim_image": ("trim",),
    "create_deviation": ("gain", "readnoise"),
    "gain_correct": ("gain",),
}
"""Facts that a step takes from the plan."""

MOST = 4
"""Values that a comment lists."""


def recipe_text(plan: NightPlan, night: str) -> str:
    """Return the recipe of a night as commented YAML.

    Parameters
    ----------
    plan
        The plan of the night, which has the recipe.
    night
        What the user calls it.
    """
    count = (
        f"{len(plan.frames)} images, {len(master_files(plan.groups))} masters, {len(exposures(plan.science))} products"
    )
    heading = [
        f"Recipe of lazyccd {versions()['lazyccd']} for {night}: {count}.",
        "Steps are operations of lazyccd. Leave one out, add one, or take the # from a parameter and change it; then",
        f"  lazyccd reduce {night} --recipe THIS.yaml -o OUT",
    ]
    return printed(plan.recipe, heading, {step.operation: _notes(plan, step.operation) for step in plan.recipe.steps})


def _notes(plan: NightPlan, operation: str) -> list[str]:
    """Return what a step does to the frames of a night."""
    frames = [item for item in plan.frames if item.is_reduced]
    notes = [f"In this night: {_values(frames, name)}." for name in FACTS.get(operation, ())]
    if operation in MASTERS:
        chosen = {
            plan.master_file(choice.master)
            for item in frames
            for choice in item.choices
            if choice and choice.kind == MASTERS[operation]
        }
        notes.append(f"In this night: {_some(sorted(chosen)) if chosen else 'none'}.")
    return notes


def _values(frames: Iterable[FramePlan], name: str) -> str:
    """Return the values of a fact with their sources."""
    found: dict[str, None] = {}
    for item in frames:
        fact: Fact[Any] = item.facts.get(name)
        text = value_to_text(name, fact.value) if fact.value is not None else "not known"
        found[f"{name} {text} ({fact.source})" if fact.source else f"{name} {text}"] = None
    return _some(list(found)) if found else f"no {name}"


def _some(texts: list[str]) -> str:
    """Return a few texts, and how many more there are."""
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return f"{', '.join(texts[:MOST])}{more}"


def printed(recipe: Recipe, heading: Iterable[str], notes: Mapping[str, Iterable[str]]) -> str:
    """Return a recipe as YAML; what is read from it is equal.

    Parameters
    ----------
    recipe
        What is written.
    heading
        Lines above all.
    notes
        For each operation, what it does to a night.
    """
    lines = [f"# {line}".rstrip() for line in heading]
    if recipe.order != "checked":
        lines += ["", f"order: {recipe.order}"]
    lines += ["", "steps:"]
    for step in recipe.steps:
        lines += ["", *_step(step, notes.get(step.operation, ()))]
    lines += ["", "# How products are written. Masters are always FITS.", *_mapping("outputs", recipe.outputs.data)]
    lines += [
        "  # format: fits                  # fits or zarr",
        "  # compress: RICE_1              # of FITS, without loss: RICE_1, GZIP_2, HCOMPRESS_1",
        "  # quantize: 4                   # steps per standard deviation of the noise to which floats are rounded",
        "  # planes: [uncertainty, mask]   # what is written besides the data",
        "  # pictures: true",
        "",
        "# Options of 'lazyccd reduce', with _ for -; those of the command line take precedence.",
        *_mapping("options", recipe.options),
        "  # gain: measured",
        "  # calib: masters                # folders and files are looked for beside this file, then in the night",
        "",
        "# How well a master must fit a frame: the levels of each kind, the strictest first. Below the first one a",
        "# product is PARTIAL.",
        "association:",
    ]
    for kind, levels in data_of_levels(recipe.levels).items():
        lines.append(f"  {kind}:")
        for level in levels:
            marks = ["-", *" " * (len(level) - 1)]
            lines += [
                f"  {mark} {name}: {_value(value)}" for mark, (name, value) in zip(marks, level.items(), strict=True)
            ]
    return "\n".join(lines) + "\n"


def _mapping(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a mapping of names to values."""
    yield f"{name}:"
    yield from (f"  {key}: {_value(value)}" for key, value in given.items())


def _value(value: Any) -> str:
    """Return a value as YAML, which has all of JSON in it."""
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    is_word = isinstance(value, str) and value.replace(" ", "").replace(",", "").replace("_", "").isalpha()
    return value if is_word and value not in {"null", "true", "false"} else json.dumps(value, ensure_ascii=False)


def _step(step: RecipeStep, notes: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a step: what it is, what it does to the night, its parameters, the others in comments."""
    summary = (inspect.getdoc(getattr(ops, step.operation)) or "").partition("\n")[0].replace("`", "")
    for text in (summary, *notes):
        yield from (f"# {line}" for line in textwrap.wrap(text, WIDTH - 2))
    yield f"- {step.operation}:"
    given = {**step.parameters, **({"on": step.on} if step.on else {})}
    yield from (f"    {name}: {_value(value)}" for name, value in given.items())
    for name, parameter in parameters_of(step.operation).items():
        if name not in given:
            default = RULES[step.operation].defaults.get(name, parameter.default)
            # What the plan of the night gives has no default.
            is_planned = parameter.is_required or name in RULES[step.operation].options
            line = f"    # {name}: {'...' if is_planned else _value(default)}"
            text = textwrap.shorten(parameter.text.replace("`", ""), WIDTH - 36, placeholder=" ...")
            yield f"{line:34}# {text}"

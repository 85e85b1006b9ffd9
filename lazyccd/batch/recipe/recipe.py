"""`Recipe`: the steps of a reduction in their order, how products are written, and options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lazyccd.batch.levels import LEVELS, Levels
from lazyccd.batch.options import FILES, Options, as_option
from lazyccd.batch.recipe.document import shown
from lazyccd.batch.recipe.rules import MASTERS, RULES, WHOLE, parameters_of
from lazyccd.batch.recipe.steps import BUILT_IN, Outputs, RecipeStep, levels_of
from lazyccd.errors import MissingFileError, ParameterError
from lazyccd.io.names import split_hdu

NEEDED_BY = {
    "overscan": "subtract_overscan",
    "trim": "trim_image",
    "cosmic_rays": "cosmicray_lacosmic",
    **{kind: step for step, kind in MASTERS.items()},
}
"""Options that ask for something, and the step that does it."""


@dataclass(frozen=True)
class Recipe:
    """What ``lazyccd reduce`` does to the frames of a night; without arguments what it does by default.

    Parameters
    ----------
    steps
        Operations in their order: names, or mappings such as ``{"median_filter": {"size": 5}}``. Parameters are those of the
        operation of that name. What the plan of a night knows better need not be given: masters, gains, sections. ``on``
        says which frames an added step is done on: some of bias, dark, flat, science.
    outputs
        How products are written: ``format``, ``compress``, ``quantize``, ``planes``, ``pictures``.
    options
        Options of ``lazyccd reduce``, with underscores. Those of the command line take precedence.
    association
        For some kinds of masters (bias, dark, flat) the levels in which they may fit a frame, the strictest first, each a mapping
        such as ``{"text": "of the same week", "max_days": 7}``.
    order
        ``checked`` refuses steps that are not in the order of a right reduction; ``as listed`` lets them pass.
    folder
        Where files that the recipe names are looked for, before the folder of the night.
    path
        File that it was read from.

    Raises
    ------
    RecipeError
        Raised if something cannot be as it is; the message has a line for each fault.

    Examples
    --------
    >>> [step.operation for step in Recipe().steps][:4]
    ['flag_saturated', 'add_mask', 'subtract_overscan', 'trim_image']
    >>> Recipe(steps=["trim_image", {"cosmicray_lacosmic": {"sigclp": 5}}])
    Traceback (most recent call last):
    lazyccd.errors.RecipeError: the recipe has a fault:
      steps[1].cosmicray_lacosmic.sigclp: is no parameter of cosmicray_lacosmic; did you mean 'sigclip'?
    """

    steps: Sequence[Any] = BUILT_IN
    outputs: Any = field(default_factory=Outputs)
    options: Mapping[str, Any] = field(default_factory=dict)
    association: Mapping[str, Any] = field(default_factory=dict)
    order: Literal["checked", "as listed"] = "checked"
    folder: str = field(default="", kw_only=True)
    path: str = field(default="", kw_only=True)
    lines: Mapping[tuple[str | int, ...], int] = field(
        default_factory=dict, init=False, compare=False, repr=False, hash=False
    )
    """Line of each key in the file that it was read from."""

    def __post_init__(self) -> None:
        """Check what was given; the built-in recipe needs no library for that."""
        given = self.outputs != Outputs() or self.options or self.association or self.order != "checked"
        if self.steps is BUILT_IN and not given:
            return
        from lazyccd.batch.recipe.document import Document
        from lazyccd.batch.recipe.schema import check

        self._take(check(Document(_plain(self)), "the recipe"))

    def _take(self, checked: Mapping[str, Any]) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe from a file of YAML 1.2.

        The file is data only: it cannot run code, and names files below its own folder or that of the night, nothing else.

        Parameters
        ----------
        path
            Name of the file; ``lazyccd recipe NIGHT`` prints one.

        Raises
        ------
        RecipeError
            Raised if something in it cannot be as it is. The message has a line for each fault, with the line of the file.
        MissingFileError
            Raised if there is no such file.
        """
        from lazyccd.batch.recipe.document import read_file
        from lazyccd.batch.recipe.schema import check

        name = os.fspath(path)
        recipe = cls(folder=os.path.dirname(os.path.abspath(name)), path=os.path.abspath(name))
        document = read_file(path)
        recipe._take({**check(document, f"recipe {name!r}", is_file=True), "lines": document.lines})
        return recipe

    @property
    def data(self) -> dict[str, Any]:
        """The recipe as plain data, which `Recipe` takes and YAML can hold."""
        return _plain(self)

    @property
    def levels(self) -> Levels:
        """How well masters must fit a frame."""
        return levels_of(self.association)

    @property
    def is_built_in(self) -> bool:
        """Whether it gives the pixels of the one that nobody changed; compression loses none."""
        plain = {**self.with_outputs(compress=None).data, "association": {}}
        return plain == Recipe().data and self.levels == LEVELS

    def with_outputs(self, **changed: Any) -> Recipe:
        """Return the recipe with other outputs, such as an option of the command asks for.

        Parameters
        ----------
        **changed
            Fields of ``outputs``, checked already.
        """
        made = copy(self)
        made._take({"outputs": replace(self.outputs, **changed)})
        return made

    def step(self, operation: str) -> RecipeStep | None:
        """Return a step by the name of its operation; None if there is none."""
        return next((step for step in self.steps if step.operation == operation), None)

    @property
    def of_images(self) -> tuple[RecipeStep, ...]:
        """Steps that are done on single images, those of masters too."""
        return tuple(self.steps[: self._first_whole])

    @property
    def of_detectors(self) -> tuple[RecipeStep, ...]:
        """Steps that are done on whole detectors."""
        return tuple(self.steps[self._first_whole :])

    @property
    def _first_whole(self) -> int:
        """Where the steps on whole detectors begin."""
        whole = (n for n, step in enumerate(self.steps) if (RULES[step.operation].place or 0) >= WHOLE)
        return next(whole, len(self.steps))

    def uses(self, kind: str) -> bool:
        """Return whether there is a step that needs a kind of master."""
        return any(MASTERS.get(step.operation) == kind for step in self.steps)

    def needs(self, fact: str) -> bool:
        """Return whether a product lacks something without a kind of master, a gain or a read noise."""
        if fact in {"gain", "readnoise"}:
            return self.step("create_deviation") is not None or (
                fact == "gain" and self.step("gain_correct") is not None
            )
        return self.uses(fact)

    def options_under(self, given: Options, night: str) -> Options:
        """Return the options of a run: those given, then what the recipe states.

        Parameters
        ----------
        given
            Options of the command line.
        night
            Folder of the night.

        Raises
        ------
        ParameterError
            Raised if an option that was given asks for a step that the recipe does not have.
        MissingFileError
            Raised if a file that the recipe names is not there.
        """
        stated = self._stated(night)
        for name, operation in NEEDED_BY.items():
            value = getattr(given, name)
            if value not in {"", (), "none"} and self.step(operation) is None:
                raise ParameterError(
                    f"--{name.replace('_', '-')} needs the step {operation}, which {self.title} does not have; add it."
                )
        return Options(**{**stated, **given.given})

    def without_stated(self, options: Options, night: str) -> Options:
        """Return options without those that the recipe states: it states them again when it is read."""
        default, stated = Options(), self._stated(night) if self.path else {}
        return replace(
            options,
            **{name: getattr(default, name) for name, value in stated.items() if getattr(options, name) == value},
        )

    def origins(self, options: Options) -> dict[str, str]:
        """Return where the recipe states values that a run has, with the line of its file; not those that a command gave.

        Parameters
        ----------
        options
            Those of the run.
        """
        stated: dict[str, tuple[Any, tuple[str | int, ...]]] = {
            name: (value, ("options", name)) for name, value in self.options.items() if name not in FILES
        }
        for number, step in enumerate(self.steps):
            for key, name in RULES[step.operation].options.items():
                if step.parameters.get(key) is not None and name not in FILES:
                    stated[name] = step.parameters[key], ("steps", number, step.operation, key)
        return {
            name: self._where(place)
            for name, (value, place) in stated.items()
            if as_option(name, value) == getattr(options, name)
        }

    def _where(self, place: tuple[str | int, ...]) -> str:
        """Return what messages call a place in the recipe."""
        line = f", line {self.lines[place]}" if place in self.lines else ""
        return f"{self.title}{line}, {shown(place)}"

    def _stated(self, night: str) -> dict[str, Any]:
        """Return the options that the recipe states, also by its steps, in the form that they have in a command."""
        stated = dict(self.options)
        for step in self.steps:
            for name, option in RULES[step.operation].options.items():
                if step.parameters.get(name) is not None:
                    stated[option] = step.parameters[name]
        for name in FILES & set(stated):
            several = [stated[name]] if isinstance(stated[name], str) else stated[name]
            found = [self.find(each, night) for each in several]
            stated[name] = found[0] if isinstance(stated[name], str) else found
        for name in ("overscan", "trim", "cosmic_rays"):
            if self.step(NEEDED_BY[name]) is None:
                stated[name] = "none"
        return {name: as_option(name, value) for name, value in stated.items()}

    def find(self, name: str, night: str) -> str:
        """Return the path of a file that the recipe names, in its folder or in that of the night.

        Raises
        ------
        MissingFileError
            Raised if it is in neither.
        """
        folders = [folder for folder in (self.folder, night) if folder] or ["."]
        for folder in folders:
            path = os.path.join(folder, name)
            if os.path.exists(split_hdu(path)[0]):
                return os.path.abspath(path)
        raise MissingFileError(
            f"{self.title} names {name!r}, which is neither in {' nor in '.join(map(repr, folders))}; correct the name."
        )

    def files(self, night: str) -> dict[str, str]:
        """Return the paths of files that added steps read, by their names in the recipe."""
        names = [
            value
            for step in self.steps
            for name, value in step.parameters.items()
            if isinstance(value, str) and parameters_of(step.operation)[name].names_file(value)
        ]
        return {name: self.find(name, night) for name in names}

    @property
    def name(self) -> str:
        """The name of its file, and a hash of what it says, which tells one version from another."""
        content = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()[:12]
        return f"{os.path.basename(self.path) or 'recipe'} {content}"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"recipe {os.path.basename(self.path)!r}" if self.path else "the recipe"


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Return what was given for a recipe, or what came of it, as plain data."""
    steps = [step.data if isinstance(step, RecipeStep) else step for step in recipe.steps]
    outputs = recipe.outputs.data if isinstance(recipe.outputs, Outputs) else recipe.outputs
    association = {kind: list(levels) for kind, levels in recipe.association.items()}
    return {
        "order": recipe.order,
        "steps": steps,
        "outputs": outputs,
        "options": dict(recipe.options),
        "association": association,
    }


def read_recipe(options: Options) -> Recipe:
    """Return the recipe that options name; the built-in one if they name none."""
    return Recipe.read(options.recipe) if options.recipe else Recipe()

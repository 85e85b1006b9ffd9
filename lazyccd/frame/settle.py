"""Global numbers of a plan computed once and put in, and those of them that belong into the header."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dask.base import compute

from lazyccd.frame.core import Image
from lazyccd.frame.header import append_cards
from lazyccd.plan.lower import lower_scalars
from lazyccd.plan.steps import Scalar, Stack, Step, settled


def settle_image(image: Image) -> Image:
    """Return the image with the global numbers of its plan computed and put in; what they tell is in the header."""
    image, cards = settle_scalars(image)
    return replace(image, header=append_cards(image.header, cards)) if cards else image


def settle_scalars(image: Image) -> tuple[Image, list[tuple[str, float, str]]]:
    """Return the image with the global numbers of its plan put in, and the cards for its header."""
    wanted = {value.token: value for value in _own_scalars(image.plan) if value.given is None and value.cards}
    found = {}
    while values := image.plan.pending:
        lazy = lower_scalars(values.values(), image.graphs)
        numbers = dict(zip(values, compute(*lazy), strict=True))
        found.update({token: numbers[token] for token in wanted if token in numbers})
        image = replace(image, plan=settled(image.plan, numbers))
    cards = {}
    for token, value in wanted.items():
        for keyword, index, comment in value.cards:
            number = float(found[token].ravel()[index])
            if number == number:
                cards[keyword] = (keyword, float(f"{number:.6g}"), comment)
    return image, list(cards.values())


def has_cards(image: Image) -> bool:
    """Return whether numbers that are not known yet belong into the header."""
    return any(value.given is None and value.cards for value in _own_scalars(image.plan))


def _own_scalars(plan: Step) -> Iterator[Scalar]:
    """Yield the values of the frame's own steps, oldest first: not those of masters, nor of the inputs of a stack."""
    chain = [plan]
    while chain[-1].inputs and not isinstance(chain[-1], Stack):
        chain.append(chain[-1].inputs[0])
    for step in reversed(chain):
        yield from step.global_scalars

"""Settling: pending scalars of a plan computed once and put in, and those of them that belong into the header."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from dask.base import compute

from lazyccd.frame.core import Image
from lazyccd.frame.header import append_cards
from lazyccd.plan.lower import lower_scalars
from lazyccd.plan.steps import Scalar, Step, settled


def settle_image(image: Image) -> Image:
    """Return the image with the scalars of its plan computed and put in; what they tell is in the header."""
    image, cards = settle_scalars(image)
    return replace(image, header=append_cards(image.header, cards)) if cards else image


def settle_scalars(image: Image) -> tuple[Image, list[tuple[str, float, str]]]:
    """Return the image with the scalars of its plan put in, and the cards for its header."""
    wanted = {scalar.token: scalar for scalar in _own_scalars(image.plan) if scalar.given is None and scalar.cards}
    found = {}
    while pending := image.plan.pending:
        lazy = lower_scalars(pending.values(), image.graphs)
        scalars = dict(zip(pending, compute(*lazy), strict=True))
        found.update({token: scalars[token] for token in wanted if token in scalars})
        image = replace(image, plan=settled(image.plan, scalars))
    cards = {}
    for token, scalar in wanted.items():
        for card in scalar.cards:
            number = float(found[token].ravel()[card.element])
            if not math.isnan(number):
                cards[card.keyword] = (card.keyword, float(f"{number:.6g}"), card.comment)
    return image, list(cards.values())


def has_cards(image: Image) -> bool:
    """Return whether scalars that are pending belong into the header."""
    return any(scalar.given is None and scalar.cards for scalar in _own_scalars(image.plan))


def _own_scalars(plan: Step) -> Iterator[Scalar]:
    """Yield the scalars of the frame's own steps, oldest first: not those of masters, nor of the inputs of a stack."""
    chain = [plan]
    while chain[-1].inputs and not chain[-1].pulls_inputs:
        chain.append(chain[-1].inputs[0])
    for step in reversed(chain):
        yield from (scalar for _, scalar in step.scalars)

"""Plans made from other plans: numbers put in, steps replaced, what several have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from lazyccd.plan.steps import Step, Value
from lazyccd.plan.walk import walk


def settled(root: Step, numbers: dict[str, npt.NDArray[Any]]) -> Step:
    """Return the plan with the values whose tokens are in ``numbers`` put in."""
    return rebuilt(root, {}, numbers)


def rebuilt(root: Step, steps: Mapping[str, Step], numbers: Mapping[str, npt.NDArray[Any]]) -> Step:
    """Return the plan with other steps for those whose tokens are in ``steps``, and with values put in."""
    new: dict[str, Step] = {}
    for step in walk(root):
        if step.token in steps:
            new[step.token] = steps[step.token]
            continue
        inputs = tuple(new[i.token] for i in step.inputs)
        values = tuple(
            Value(given=numbers[v.token], what=v.what, cards=v.cards) if v.given is None and v.token in numbers else v
            for v in step.values
        )
        changed = any(a is not b for a, b in zip(inputs, step.inputs, strict=True)) or values != step.values
        new[step.token] = step.with_inputs(inputs, values) if changed else step
    return new[root.token]


def shared_by_all(roots: Sequence[Step]) -> list[Step]:
    """Return the steps that all plans have, less those that only such steps read."""
    plans = [{step.token: step for step in walk(root)} for root in roots]
    common = set(plans[0]).intersection(*plans[1:])
    tops: dict[str, Step] = {root.token: root for root in roots if root.token in common}
    for plan in plans:
        for step in plan.values():
            if step.token not in common:
                tops.update({i.token: i for i in step.inputs if i.token in common})
    return list(tops.values())

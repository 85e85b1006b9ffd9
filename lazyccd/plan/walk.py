"""The steps of a plan in order."""

from __future__ import annotations

from collections.abc import Iterator

from lazyccd.plan.steps import Step


def walk(*roots: Step) -> Iterator[Step]:
    """Yield every step once, inputs before the steps that read them."""
    seen: set[str] = set()
    todo: list[tuple[Step, bool]] = [(root, False) for root in reversed(roots)]
    while todo:
        step, ready = todo.pop()
        if ready:
            yield step
        elif step.token not in seen:
            seen.add(step.token)
            todo.append((step, True))
            todo.extend((i, False) for i in reversed(step.inputs) if i.token not in seen)

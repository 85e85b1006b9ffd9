"""The frame that a single call holds: a Dataset that is made when somebody looks into it."""

from __future__ import annotations

from typing import Any

import xarray as xr

from lazyccd.plan.steps import held_arrays


class HeldFrame(xr.Dataset):
    """A frame inside of a single call: the image is at hand, and it becomes a Dataset as soon as somebody looks into it.

    Parameters
    ----------
    image
        The `lazyccd.frame.core.Image`, which imports this file.
    """

    __slots__ = ("held", "image")

    def __init__(self, image: Any) -> None:
        # no call of the Dataset's own __init__: its slots stay empty until `__getattr__` fills them
        self.image = image
        self.held = held_arrays()

    def __getattr__(self, name: str) -> Any:
        """Make the Dataset when the first of its slots is asked for."""
        if name in ("held", "image"):
            return None  # xarray made a copy, which is a Dataset like any other
        if name not in xr.Dataset.__slots__ or self.image is None:
            return super().__getattr__(name)
        whole, self.image = self.image.lowered(), None
        for slot in xr.Dataset.__slots__:
            if slot != "__weakref__" and hasattr(whole, slot):
                setattr(self, slot, getattr(whole, slot))
        return object.__getattribute__(self, name)

"""The modules of ``ccdproc.utils``."""

from __future__ import annotations

from lazyccd.ccdproc.utils import slices

__all__ = ["slices"]

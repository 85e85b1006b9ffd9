"""Descriptions of plans, as archives keep them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData

import lazyccd
from lazyccd.frame.core import resolve
from lazyccd.plan.serialize import describe


def test_a_described_plan_is_not_kept() -> None:
    """While it is in use, the description is made once; a night of a thousand plans must not keep them."""
    image = resolve(lazyccd.add(lazyccd.from_ccddata(CCDData(np.ones((4, 5)), unit=u.adu)), 3 * u.adu))
    assert describe(image.plan) is describe(image.plan)
    plan = weakref.ref(image.plan)
    del image
    gc.collect()
    assert plan() is None

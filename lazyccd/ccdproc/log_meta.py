"""What the header says about a step: the names of ``ccdproc.log_meta``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lazyccd.frame.history_log import apply_to_meta, bind_arguments, log_entries
from lazyccd.frame.keyword import Keyword

__all__ = ["log_to_metadata"]


def log_to_metadata(func: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of a CCDData take ``add_keyword``, and note the call in the header of its result.

    ``add_keyword`` may be True for the function's name and the arguments that were given, a string, a `Keyword` or a
    dictionary for that instead, and None or False for nothing.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, add_keyword: Any = True, **kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        entries = add_keyword
        if not isinstance(add_keyword, bool | str | Keyword | None):
            entries = dict(add_keyword.items())  # anything else that has items counts as a dictionary, as in ccdproc
        apply_to_meta(result.meta, log_entries(func.__name__, bind_arguments(func, args, kwargs), entries))
        return result

    return wrapper

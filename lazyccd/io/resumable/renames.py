"""Give finished files and folders their names: at once, and never over something that was not to be replaced.

POSIX has no call for either: ``rename`` replaces what is there without asking, and cannot replace a folder. Linux has
``renameat2``; file systems and systems without it take two steps, between which a process can die.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

from lazyccd.errors import TargetExistsError

AT_FDCWD = -100
NO_REPLACE, EXCHANGE = 1, 2
"""Flags of ``renameat2``, of linux/fs.h."""

UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}
"""What systems, file systems and sandboxes answer that do not know the call or the flag."""


def give_name(unfinished: str, final: str, *, overwrite: bool) -> None:
    """Give a finished file its final name.

    Raises
    ------
    TargetExistsError
        Raised if the name is taken, perhaps only since the write began, and may not be replaced.
    """
    if overwrite:
        os.replace(unfinished, final)
    elif not move_new(unfinished, final):
        raise taken_meanwhile(final)


def move_new(old: str, new: str) -> bool:
    """Rename a file, unless the new name is taken; return whether it was renamed. Of several processes one succeeds."""
    try:
        if _renameat2(old, new, NO_REPLACE):
            return True
        os.link(old, new)
    except FileExistsError:
        return False
    # neither is there on FAT and some file systems of the network
    except OSError as error:
        if error.errno not in UNSUPPORTED | {errno.EMLINK}:
            raise
        if os.path.lexists(new):
            return False
        os.rename(old, new)
        return True
    os.unlink(old)
    return True


def exchange(one: str, other: str) -> bool:
    """Let two files or folders change names, at once; return False where the system cannot."""
    return _renameat2(one, other, EXCHANGE)


def taken_meanwhile(final: str) -> TargetExistsError:
    """Return the error that a name was taken while its product was written."""
    return TargetExistsError(
        f"{final} exists and did not when the write began; pass overwrite=True to replace it, or give another name."
    )


def check_kind(path: str) -> None:
    """Raise if a product cannot have a name because of what has it: a device, a pipe, or a link to something else.

    Raises
    ------
    TargetExistsError
        Raised for these.
    """
    if os.path.islink(path):
        raise TargetExistsError(
            f"{path} is a link to {os.readlink(path)}; give the name of what is to be written itself."
        )
    if os.path.lexists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise TargetExistsError(f"{path} is a device, a pipe or a socket and not a file; give another name.")


def _renameat2(old: str, new: str, flag: int) -> bool:
    """Rename with a flag; return False where the system or the file system cannot."""
    call: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), old, None, new)

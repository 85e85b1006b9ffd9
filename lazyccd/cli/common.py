"""Errors and warnings as lines, and the options for scheduler and memory limit; all commands share them."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lazyccd.errors import ClusterLostError, LazyCCDError, printable

if TYPE_CHECKING:
    from lazyccd.cli.workers import ClusterWatch

F = TypeVar("F", bound=Callable[..., Any])

USAGE_ERROR = 2
"""Exit status of a command that cannot be carried out as given."""

CLUSTER_LOST = 1
"""Exit status of a command that could not be carried out for want of a cluster."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""


def say(what: object, *, err: bool = False, nl: bool = True) -> None:
    """Print text as `click.echo` does; names of files and values of headers in it cannot steer the terminal."""
    click.echo(printable(str(what)), err=err, nl=nl)


_ARGUMENT = re.compile(r"\b([a-z]\w*)=(?:True\b|('[^']*'|\w+))?")
"""A Python argument in a message; True is what an option without a value stands for."""

_NAME = re.compile(r"(?:^|(?<=[ (]))([a-z]+_[a-z_]+)(?=[ ,;:]|[.]$)|^([a-z]+)(?= (?:'|-?\d|nan|inf|<))")
"""The name of an argument, without a value or before it: with an underscore anywhere, else at the beginning of a message."""

_QUANTITY = re.compile(r"<Quantity (\S+) [^>]*>")
"""A quantity of astropy, whose unit an option has by definition."""

_PHRASES = {
    "lazyccd.memory-limit": "--memory-limit",
    "the previous call": "the previous command",
    "The same call ": "The same command ",
    "the same call ": "the same command ",
    "call again": "run it again",
    " to open_fits()": "",
    ", or read them all with open_mef": "",
}

_SAME = {"wcs": "like"}
"""Options that give what an argument of another name does."""

_METHOD = re.compile(
    r",? (?:(?:or )?(?:as|with|by|of)|or) ds\.(?:ccd\.)?\w+(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?(?: makes,)?"
)
"""A method of frames that a message proposes: a command has none."""


def as_options(message: str) -> str:
    """Return a message of the library in the words of the command that is run: its options instead of Python arguments.

    What the command has no option for stays as it is.
    """
    context = click.get_current_context(silent=True)
    params = context.command.params if context is not None else []
    # the long one, as it is typed: of "maps" it is --map
    known = {param.name: max(param.opts, key=len) for param in params if isinstance(param, click.Option)}
    # "recipe 'a.yaml'" is the file, and no argument of that value
    files = {param.name for param in params if isinstance(param.type, click.Path)}

    def option(match: re.Match[str]) -> str:
        name, value = match[1] or match[2], match[2] if match.re is _ARGUMENT else None
        if match.re is _NAME and match[2] in files:
            return match[0]
        flag = known.get(name, known.get(_SAME.get(name, "")))
        return match[0] if flag is None else flag + (f" {value}" if value else "")

    # Chunks are the one thing that methods do and an option does too.
    chunks = " by --chunks" if "chunks" in known else ""
    message = _METHOD.sub(lambda match: chunks if "rechunk" in match[0] else "", message)
    for phrase, words in _PHRASES.items():
        message = message.replace(phrase, words)
    return _NAME.sub(option, _QUANTITY.sub(r"\1", _ARGUMENT.sub(option, message)))


class _Lines(logging.Handler):
    """Prints each log message as a line."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), err=True)


@contextmanager
def _log_is_told() -> Iterator[None]:
    """Print the warnings of the log, such as that kernels are being compiled."""
    log, lines = logging.getLogger("lazyccd"), _Lines()
    log.addHandler(lines)
    try:
        yield
    finally:
        log.removeHandler(lines)


@contextmanager
def friendly_errors() -> Iterator[None]:
    """Print errors of lazyccd and of the file system, and warnings, as lines without traceback or code."""
    try:
        with _log_is_told(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"Warning: {as_options(str(message))}", err=True)
            yield
    except KeyboardInterrupt as error:
        done = f" with {error}" if error.args else ""
        say(f"Stopped{done}. To go on, run the same command again.", err=True)
        sys.exit(INTERRUPTED)
    except ClusterLostError as error:
        say(f"Error: {error}", err=True)
        sys.exit(CLUSTER_LOST)
    except (LazyCCDError, OSError) as error:
        say(f"Error: {as_options(str(error))}", err=True)
        for note in getattr(error, "__notes__", ()):
            say(f"  {as_options(str(note))}", err=True)
        sys.exit(USAGE_ERROR)


@contextmanager
def using_scheduler(name: str, memory_limit: str | None) -> Iterator[ClusterWatch | None]:
    """Compute with threads, processes or the cluster at an address inside the block; give what watches the cluster.

    Raises
    ------
    ClusterLostError
        Raised if the scheduler, or the last worker for longer than a while, is gone.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    import dask
    import dask.local
    import dask.threaded

    from lazyccd.plan.job import job_cpus

    settings: dict[str, Any] = {} if memory_limit is None else {"lazyccd.memory-limit": memory_limit}
    if name == "processes":
        # one pool for the whole run: dask starts new processes for each computation, which import everything again
        spawn = get_context("spawn")
        with ProcessPoolExecutor(job_cpus(), spawn) as pool, dask.config.set(scheduler=name, pool=pool, **settings):
            yield None
        return
    if "://" not in name:
        # for a name, dask imports distributed, which takes longer than many a command
        scheduler = dask.threaded.get if name == "threads" else dask.local.get_sync
        with dask.config.set(scheduler=scheduler, num_workers=job_cpus(), **settings):
            yield None
        return
    from distributed import Client

    from lazyccd.cli.workers import quiet, set_up, watched
    from lazyccd.errors import ParameterError

    with dask.config.set(settings):
        try:
            client = Client(name)
        except (OSError, ValueError) as error:
            raise ParameterError(
                f"no scheduler answers at {name!r} ({error}); start one with 'dask scheduler', or correct the address."
            ) from error
        # Around the client, which tells of its connection when it is closed too.
        with quiet(), client:
            set_up(client, name)
            with watched(client, name, lambda text: say(text, err=True)) as watch:
                yield watch


def scheduler_options(command: F) -> F:
    """Add the options `--scheduler` and `--memory-limit` to a command."""
    command = click.option(
        "--scheduler",
        default="threads",
        show_default=True,
        metavar="threads|processes|tcp://HOST:PORT",
        help="Where to compute.",
        callback=_check_scheduler,
    )(command)
    return click.option(
        "--memory-limit",
        metavar="SIZE",
        help="Memory that a process may use, such as 2GB.  [default: that of the batch job or machine]",
        callback=_check_memory,
    )(command)


def _check_memory(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from dask.utils import parse_bytes

    try:
        if value is not None:
            parse_bytes(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} must be a size such as 2GB or 500MiB.") from None
    return value


def _check_scheduler(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value in {"threads", "processes", "sync"} or "://" in value:
        return value
    raise click.BadParameter(
        f"{value!r} must be threads, processes or the address of a scheduler such as tcp://host:8786."
    )

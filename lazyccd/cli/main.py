"""The command line: ``lazyccd COMMAND``."""

from __future__ import annotations

import atexit
import gc
from importlib import import_module

import click

from lazyccd import __version__

COMMANDS = ("reduce", "report", "recipe", "camera", "combine", "coadd", "show", "info", "demo")
"""The commands in the order of the help; each is a function of this name in the file of this name."""


class CommandFiles(click.Group):
    """A group that imports the file of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"lazyccd.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=CommandFiles, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Reduce CCD images of any size, lazily and chunk by chunk."""
    # Before it ends, Python looks several times for cycles among the half a million objects of the libraries: 0.25 s. The system
    # takes their memory back anyhow. What is to be done at the end, such as the removal of temporary folders, is done.
    atexit.register(gc.freeze)

"""The command line: ``lazyccd COMMAND``."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lazyccd")
def main() -> None:
    """Reduce CCD images of any size, lazily and chunk by chunk."""

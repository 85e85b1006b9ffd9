"""``python -m lazyccd`` is the command line."""

from lazyccd.cli.main import main

main(prog_name="lazyccd")

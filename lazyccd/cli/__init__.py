"""The command line, one file for each command.

`main` is the group; it imports the file of a command only when that command, or the help of the group, is asked for.
`common` has what the commands share: errors and warnings as lines, and the options for scheduler and memory limit. A command
parses its options, calls the library and prints; the work itself belongs to `lazyccd.batch`, `lazyccd.ops` or
`lazyccd.plot`.

Import numba, dask, xarray, astropy and matplotlib inside the functions that use them, so that ``lazyccd --help``,
``lazyccd --version`` and the help of each command answer at once.
"""

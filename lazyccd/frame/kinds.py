"""What something is that users hand us, asked without importing the library that it would be of.

xarray and `dask.array` bring pandas and scipy along, which take longer than many a command. There is no Dataset before somebody
has imported xarray.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr
    from typing_extensions import TypeIs


def is_instance(given: object, module: str, name: str) -> bool:
    """Return whether something is an instance of a class of a module, which is not imported for the question."""
    return isinstance(given, known_class(module, name))


def known_class(module: str, name: str) -> Any:
    """Return a class if it exists, else what nothing is an instance of."""
    # isinstance(x, ()) is False for everything
    return getattr(sys.modules.get(module), name, ())


def is_dataset(given: object) -> TypeIs[xr.Dataset]:
    """Return whether something is a Dataset, such as a frame."""
    return is_instance(given, "xarray", "Dataset")


def is_data_array(given: object) -> TypeIs[xr.DataArray]:
    """Return whether something is a DataArray."""
    return is_instance(given, "xarray", "DataArray")


def is_tree(given: object) -> TypeIs[xr.DataTree]:
    """Return whether something is a DataTree, such as a tree of frames."""
    return is_instance(given, "xarray", "DataTree")


def is_dask_array(given: object) -> TypeIs[da.Array]:
    """Return whether something is an array of dask's."""
    return is_instance(given, "dask.array", "Array")

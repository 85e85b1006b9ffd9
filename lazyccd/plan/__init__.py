"""The plan: steps, evaluation, lowering to dask, cost."""

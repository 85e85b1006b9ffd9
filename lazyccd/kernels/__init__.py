"""Kernels: functions of NumPy arrays on one block of pixels.

What belongs here: arithmetic on pixels, plain NumPy or compiled by numba through `jit.compiled`, each with a slow,
readable reference in ``tests/``. What does not: chunks and dask graphs (`lazyccd.plan`), units, headers and WCS
(`lazyccd.frame`), files (`lazyccd.io`), and the choice of parameters (`lazyccd.ops`).

Begin with `block`, which has the `Block` and the `Request` that most kernels take, then read `pointwise` for the
simplest kernels and `pixel_loops` for the rules that let LLVM vectorise a loop. The packages `cosmic_rays`, `stack`
and `fits` hold the kernels of LA Cosmic, of combining, and of the FITS pixel formats. Kernels never modify their
inputs, and their result for a pixel does not depend on the block that the pixel comes in.
"""

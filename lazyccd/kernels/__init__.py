"""Kernels: NumPy and numba on one block of pixels; they know nothing of chunks, files or graphs."""

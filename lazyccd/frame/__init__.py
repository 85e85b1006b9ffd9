"""Frames: what a valid Dataset of an image is, its units, header and coordinates, and conversions from and to CCDData.

A frame is an `xarray.Dataset` with ``data(y, x)`` and perhaps ``uncertainty`` and ``mask``; a tree is an exposure of several.
`core` turns a Dataset into an `Image`, which has the plan behind it, and back.

Here belongs what operations, readers and writers all need to know about a frame without opening a file or computing a pixel:
header text, values of cards, the WCS of a part, the header of a stack or a product. How a file lays out its HDUs belongs to
`lazyccd.io`, what an operation does to pixels to `lazyccd.ops` and `lazyccd.kernels`.

Begin with `core`, then `header` (headers are text, so that every byte survives), then `tree`.
"""

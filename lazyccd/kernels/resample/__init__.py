"""Resampling: the pixels of one image on the pixels of another, with variance and mask.

What belongs here: where a pixel of the output lies in the input (`lattice`), the weights of the interpolation kernels
(`weights`), the loops that apply them (`interpolate`, and `sums` for good pixels), and all of it on the planes of a frame (`block`). What does not:
WCS, which `lazyccd.frame.sky_mapping` asks for exact coordinates, and footprints, which are `lazyccd.plan.footprints`.

Begin with `block.resample`. Every lattice is anchored at pixel (0, 0) of the output, so that no region of it gets other
coordinates or weights than the whole.
"""

"""Kernels of stacks: many frames to one, pixel by pixel, NumPy in and NumPy out.

What belongs here is what looks at the pixels of all frames at once: which inputs count and which are rejected, how frames are
brought to one level, what is made of the inputs that are left. Files, units, headers and dask do not belong here, nor how users
choose a rule: that is `lazyccd.ops.stack`.

Begin with `combine.combine_frames`, the kernel of every stack. It takes a region in batches (`batches`), whose words are in
`types`. `rejection` and `sigma_clip` have the loops of the rejection rules, `loops` those of sums, medians and bits, `scaling`
the factors and weights of frames, `statistics` what they are scaled by. `imcombine` is IRAF's arithmetic, to the bit.
"""

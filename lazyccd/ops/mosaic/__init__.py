"""Operations on images that are parts of a larger one: amplifiers of a detector, detectors of a focal plane.

`assemble` puts the frames of a tree where DATASEC, CCDSEC and DETSEC say that they lie; `split` takes an image apart again into
a tree of its amplifiers. Both move whole pixels: an amplifier is flipped, never resampled, and nothing is copied until a chunk
is computed.

What sections of a header mean is decided in `lazyccd.frame.detector_geometry`, and how a file of several HDUs becomes a tree in
`lazyccd.io.fits`. Alignment on the sky does not belong here. Begin with `assemble`.
"""

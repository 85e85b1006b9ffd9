"""The pixel formats of FITS: byte order, checksums, compression and quantisation, on arrays in memory.

What belongs here: turning pixels into the bytes of a data unit and back. What does not: headers, tables of tiles,
open files and their regions, which are in `lazyccd.io.fits`.

Begin with `decode` and `encode` for plain images. `rice` and `hcompress` are the two compressions that are our own,
each with its reason in the file; `bits` has the bit streams that both write and read. `quantize` turns floats into
integers before compression, and `decode.dequantize` turns them back. GZIP is left to ISA-L, PLIO to astropy.
"""

"""Read and write FITS files by region, plain and tile-compressed.

Reading: `open` makes frames out of headers (`scan`, ``hdu_roles``, `dq`; `mef` makes trees). ``storage`` is what a plan holds of
an image; its readers (``plain_reader``, ``tile_reader``) get bytes from ``byte_source``, and ``pixels`` turns them into values.

Writing: `write` has `to_fits`; ``mef_write`` decides which HDUs a file has, ``layout`` makes their headers, ``writer`` and
``tile_writer`` put regions into the file, as a resumable write. HDUs that are no images pass through
(``passthrough``).

Begin with `open.image_of` or `write.to_fits`. Codecs and byte order are kernels (`lazyccd.kernels.fits`); what cards mean for
an image is in `lazyccd.frame`; what a camera's keywords mean is in `lazyccd.batch`.
"""

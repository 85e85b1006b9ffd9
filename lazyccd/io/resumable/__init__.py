"""Write any format by regions so that an interrupted write is resumed; nothing here knows FITS or Zarr.

``journal`` keeps small files beside the target, ``lease`` says who writes it, ``progress`` what is written and which regions are
done; ``write`` joins them with a product and makes the tasks; ``disk`` has what writers share.

To add an output format, write one file with

1. a frozen dataclass of what one frame is written to, with `write` and `holds` (`write.FrameTarget`);
2. a frozen dataclass of the whole file or store (`write.Product`): how it is laid out, completed and removed;
3. an entry function, which hands the images of `write.resolve_frames`, their regions and the product to `write.write`.

``tests/io/test_third_format.py`` is a complete one; `FitsProduct` in ``io/fits/writer.py`` is the
shortest of those in use.
"""

"""FITS files: headers scanned without pixels, windows read by ranges, products written by regions."""

"""How FITS stores pixels: byte order, compression, quantisation."""

"""Operations that remove what a detector and its optics leave in an image.

They come in the order in which a signal is made, read backwards: `overscan` and `trim`, then bias, dark, gain and noise in
`calibrate`, linearity, fringes and illumination in `signature`, `crosstalk`, and `flat`. `process` is ccdproc's single call
for the basic ones. Operations that are right only at one place in this order refuse a frame whose units or header say that
the place is past.

Masters come ready-made: `lazyccd.ops.stack` combines them, `lazyccd.batch` chooses them. Cosmic rays and bad pixels, which
are not properties of an instrument, are beside this package. Begin with `calibrate`.
"""

"""What a detector leaves in its images, and taking it out: overscan, bias, dark, flat, linearity, crosstalk, fringes."""

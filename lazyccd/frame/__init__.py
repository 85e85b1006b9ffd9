"""What a valid frame is: variables, units, header, coordinates; conversions from and to CCDData."""

"""Whole nights: what each file is, who belongs to whom, what will be done, and the doing."""

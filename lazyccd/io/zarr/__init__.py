"""Zarr stores: read by windows, written by whole shards, with checksums, levels and provenance."""

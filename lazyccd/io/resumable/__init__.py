"""Writes that can be interrupted and resumed, whatever the format."""

"""Combining many frames into one."""

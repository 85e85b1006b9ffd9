"""Amplifiers and detectors put together, and taken apart."""

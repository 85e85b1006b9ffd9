"""The parts of LA Cosmic."""

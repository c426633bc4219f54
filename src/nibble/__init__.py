"""Nibble: speech recognisers that are four bits wide and lose nothing."""

__version__ = "0.1.0"

"""Nibble: speech recognisers that are four bits wide and lose nothing."""

from nibble.threads import spin_briefly

__version__ = "0.1.0"

spin_briefly()  # before any part imports torch

"""Nibble: speech recognisers that are four bits wide and lose nothing."""

from nibble.gpu_memory import let_segments_grow
from nibble.threads import spin_briefly

__version__ = "0.1.0"

# Before any part imports torch, which reads both.
spin_briefly()
let_segments_grow()

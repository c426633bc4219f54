"""Lets torch allocate GPU memory in segments that can grow.

The batches of speech have many lengths. In segments of fixed sizes, what one batch frees often fits no later one, and
a training that needs two thirds of a GPU can run out of memory.
"""

import os

VARIABLE = "PYTORCH_ALLOC_CONF"
# A user who sets one of these has chosen; the second is its older name.
CHOICES = (VARIABLE, "PYTORCH_CUDA_ALLOC_CONF")


def let_segments_grow() -> None:
    """Set the environment for torch, which reads it when it first uses a GPU."""
    if not any(name in os.environ for name in CHOICES):
        os.environ[VARIABLE] = "expandable_segments:True"

"""Finds out whether the CUDA and Triton kernels have a GPU."""

import warnings

import torch

OLDEST = (8, 0)  # Ampere


def missing_gpu() -> str | None:
    """Why no GPU can be used here, with torch's own reason; None if one can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; pytorch.org says how to install one with it"
    with warnings.catch_warnings(record=True) as said:  # torch warns of a driver that is too old
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    if not there:
        reasons = [str(warning.message).partition(" (Triggered")[0] for warning in said]
        return "; ".join(["torch can use no GPU here", *reasons])
    if (version := torch.cuda.get_device_capability()) < OLDEST:
        return f"this GPU is of version {version[0]}.{version[1]}; {OLDEST[0]}.{OLDEST[1]} (Ampere) or later is needed"
    return None

"""Whether there is a GPU for the CUDA and Triton kernels."""

import torch

OLDEST = (8, 0)  # Ampere


def missing_gpu() -> str | None:
    """Why the kernels for GPUs cannot run here; None if they can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; pytorch.org says how to install one with it"
    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    if (version := torch.cuda.get_device_capability()) < OLDEST:
        return f"this GPU is of version {version[0]}.{version[1]}; {OLDEST[0]}.{OLDEST[1]} (Ampere) or later is needed"
    return None

"""The device that a command computes on."""

import torch

from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.kernels.gpu import missing_gpu


def choose_device(hardware: HardwareConfig) -> torch.device:
    """The one device of `hardware=`: the CPU or a GPU.

    Raises:
        UserError: a GPU is asked for, and there is none that can be used.
    """
    if hardware.accelerator == "cpu" or (hardware.accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if (reason := missing_gpu()) is not None:
        raise UserError(
            f"hardware.accelerator={hardware.accelerator}: {reason}. Give hardware=cpu, or look at what nvidia-smi says"
        )
    return torch.device("cuda")

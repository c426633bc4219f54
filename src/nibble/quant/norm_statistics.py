"""Separate batch-norm statistics for each precision that one run trains (Yu et al., 2019, switchable norms).

Coarser weights give activations of another mean and variance; statistics averaged over precisions would suit none.
"""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nibble.quant.spec import Precision

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def separate(model: nn.Module, precisions: Iterable[Precision]) -> None:
    """Give each batch norm statistics for each of `precisions`, as buffers `running_mean_int8` and so on, in place."""
    for norm in batch_norms(model):
        for precision in precisions:
            for name in _STATISTICS:
                norm.register_buffer(f"{name}_{precision.value}", norm.get_buffer(name).clone())


def select(model: nn.Module, precision: Precision) -> None:
    """Let batch norms use and update the statistics of `precision`; norms without separate ones stay as they are.

    A precision that was never trained starts from the statistics in use until now.
    """
    for norm in batch_norms(model):
        if f"running_mean_{precision.value}" not in norm._buffers:
            continue
        untrained = not norm.get_buffer(f"num_batches_tracked_{precision.value}")
        for name in _STATISTICS:
            own = norm.get_buffer(f"{name}_{precision.value}")
            if untrained:
                own.copy_(norm.get_buffer(name))
            norm._buffers[name] = own  # the same tensor under both names: what training changes, both have


def settle(model: nn.Module) -> None:
    """Keep only the statistics in use, for a model that stays at its precision."""
    for norm in batch_norms(model):
        for name in [name for name in norm._buffers if name.startswith(tuple(f"{own}_" for own in _STATISTICS))]:
            delattr(norm, name)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Batch norms that have statistics to keep."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]

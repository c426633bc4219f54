"""Tries a training step at every precision of the schedule, before training begins.

A network that runs in float may fail once it is quantized, and training would find that out only after hours.
"""

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from nibble.quant.convert import quantized_modules, set_precision
from nibble.quant.spec import Precision, ScheduleConfig

State = tuple[Precision, float]  # a precision, and the blend of quantized into float weights


def states_ahead(schedule: ScheduleConfig, fraction: float) -> list[State]:
    """The precisions, on a ramp and off it, that training at `fraction`, 0 ... 1, still comes to."""
    ends = [phase.at for phase in schedule.phases[1:]] + [1.0]
    found: list[State] = []
    for phase, end in zip(schedule.phases, ends, strict=True):
        if end > fraction:
            found += [(phase.precision, 0.5)] if phase.ramp else []
            found += [(precision, 1.0) for precision in phase.together or [phase.precision]]
    return list(dict.fromkeys(found))


def rehearse(model: nn.Module, states: list[State], step: Callable[[], object]) -> list[str]:
    """Run `step` at each of these states.

    Args:
        model: prepared.
        states: precisions and blends; the model is left at the last one.
        step: a forward pass, with gradients.

    Returns:
        the quantized layers that no step ran although it ran the module around them: that one multiplies by their
        float weights itself.

    Raises:
        Exception: what `step` raised, with a note that names the precision.
    """
    ran: set[nn.Module] = set()
    hooks = [module.register_forward_pre_hook(lambda module, _inputs: ran.add(module)) for module in model.modules()]
    try:
        for precision, blend in states:
            set_precision(model, precision, blend)
            try:
                step()
            except Exception as error:
                share = f" with {blend:.0%} of the rounding" if blend < 1 else ""
                error.add_note(
                    f"A training step was tried at precision {precision.value}{share} before training began, and this "
                    "is how it fails. A rule without specs that comes first leaves a layer in float."
                )
                raise
    finally:
        for hook in hooks:
            hook.remove()
    around = {name: model.get_submodule(name.rpartition(".")[0]) for name in quantized_modules(model) if name}
    return [name for name, parent in around.items() if parent in ran and model.get_submodule(name) not in ran]


def training_step(trainer: pl.Trainer, module: pl.LightningModule, batch: Any) -> Callable[[], object] | None:
    """A function that runs the module's training step on a batch without logging it; None if that can't be repeated.

    A module that steps its optimizers itself is not run twice, nor is one whose parameters are spread over processes,
    nor one that says `repeatable_step = False`.
    """
    spread = not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    names = list(inspect.signature(module.training_step).parameters)
    repeatable = module.automatic_optimization and getattr(module, "repeatable_step", True)
    if spread or not repeatable or "dataloader_iter" in names:
        return None

    def step() -> object:
        with trainer.precision_plugin.train_step_context():
            return module.training_step(*(batch, 0)[: len(names)])

    return step


@contextmanager
def unchanged(module: pl.LightningModule) -> Iterator[None]:
    """Inside, nothing is logged; afterwards attributes, buffers and random numbers are as they were before."""
    attributes = [
        (part, {name: (value, _copied(value)) for name, value in vars(part).items()}) for part in module.modules()
    ]
    buffers = [
        (part, [(name, value, _copied(value)) for name, value in part._buffers.items()]) for part in module.modules()
    ]
    drawn = torch.get_rng_state(), torch.cuda.get_rng_state_all(), random.getstate(), np.random.get_state()  # noqa: NPY002 - SpecAugment of transformers draws from it
    vars(module).update(log=_ignore, log_dict=_ignore)
    try:
        yield
    finally:
        for part, before in attributes:
            vars(part).clear()
            vars(part).update({name: _restored(value, copy) for name, (value, copy) in before.items()})
        for part, kept in buffers:
            part._buffers.update({name: _restored(value, copy) for name, value, copy in kept})
        torch.set_rng_state(drawn[0])
        torch.cuda.set_rng_state_all(drawn[1])
        random.setstate(drawn[2])
        np.random.set_state(drawn[3])  # noqa: NPY002


def _ignore(*_: Any, **__: Any) -> None:
    """In place of `LightningModule.log`."""


def _copied(value: Any) -> Any:
    """A copy of what may be changed in place."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return value.copy() if type(value) in (list, set) else None


def _restored(value: Any, copy: Any) -> Any:
    """The same object with the contents that it had."""
    if isinstance(value, Tensor):
        with torch.no_grad():
            value.copy_(copy)
    elif type(value) is list:
        value[:] = copy
    elif type(value) is set:
        value.clear()
        value.update(copy)
    return value

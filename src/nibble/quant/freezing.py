"""Freezes batch-norm statistics and scales in a phase of the schedule, while the weights are still trained."""

from torch import nn

from nibble.errors import UserError
from nibble.quant.convert import quantized_modules
from nibble.quant.norm_statistics import batch_norms
from nibble.quant.spec import QuantConfig, ScheduleConfig


def check_freezing(quant: QuantConfig, schedule: ScheduleConfig) -> None:
    """Raise `UserError` if a phase freezes scales that the rules lack."""
    has_scales = any(
        (rule.weight is not None and rule.weight.learned) or (rule.activation is not None and rule.activation.static)
        for rule in quant.rules
    )
    for number, phase in enumerate(schedule.phases):
        where = f"schedule.phases[{number}], at {phase.at:g}"
        if phase.freeze_scales and not has_scales:
            raise UserError(
                f"{where}: freeze_scales=true, but no layer has a scale with a state of its own: weight scales are "
                "computed from the weights, and activation scales from the input. Set weight.learned=true or "
                "activation.static=true in quant.rules, or leave freeze_scales out"
            )


def freeze_norms(model: nn.Module, frozen: bool) -> None:
    """Let batch norms keep their running statistics and normalise with them, or follow the batches again.

    Gain and bias are still trained. The modes last until the next `model.train()`.
    """
    for norm in batch_norms(model):
        norm.train(model.training and not frozen)


def freeze_scales(model: nn.Module, frozen: bool) -> None:
    """Let static activation scales stay as they are, or follow the input again."""
    for layer in quantized_modules(model).values():
        layer.scales_frozen = frozen


def drop_scale_gradients(model: nn.Module) -> None:
    """Remove the gradients of learned weight scales: an optimizer skips parameters without a gradient.

    With gradients of zero it would still move them by momentum and weight decay.
    """
    for layer in quantized_modules(model).values():
        for name in layer.weight_names:
            if (log_scale := layer._parameters.get(f"{name}_log_scale")) is not None:
                log_scale.grad = None

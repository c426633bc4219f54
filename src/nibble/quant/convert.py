"""Quantizes a model: prepare, set_precision, prune, freeze."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nibble.errors import UserError
from nibble.kernels import implementations
from nibble.quant.attention import QuantMultiheadAttention, without_fast_paths
from nibble.quant.layer import QuantizedLayer
from nibble.quant.low_rank import factorize
from nibble.quant.modules import QuantLinear
from nibble.quant.norm_statistics import select, settle
from nibble.quant.quantized_type import quantized_type
from nibble.quant.rules import assign
from nibble.quant.spec import Arithmetic, Precision, QuantConfig, Rule


def prepare(model: nn.Module, config: QuantConfig) -> None:
    """Give every module that a rule wins its quantized type, in place; all start in float.

    Layers that `config.low_rank` names are factorized first. All other parameters stay the same objects under the same
    names. A subclass of a float type keeps its own forward: see `nibble.quant.quantized_type`.

    Raises:
        UserError: the model is prepared already, or `nibble.quant.rules.assign` or
            `nibble.quant.low_rank.factorize` finds a rule wrong.
    """
    implementations.load_once()  # so that an error in the choice of kernels comes before the first product
    if quantized_modules(model):
        raise UserError("the model is prepared for quantization already; prepare a new float model")
    if config.low_rank:
        factorize(model, config.low_rank)
    for name, rule in assign(model, config.rules).items():
        module = model.get_submodule(name)
        quantized = quantized_type(type(module))
        only_activation = rule.weight is None and rule.sparsity is None and rule.analog is None
        if rule.is_float or quantized is None or (only_activation and not quantized.takes_activation):
            continue
        _become(module, quantized, name, rule, config.arithmetic)
        if isinstance(module, QuantMultiheadAttention):
            _become(module.out_proj, QuantLinear, f"{name}.out_proj", rule, config.arithmetic)
    without_fast_paths(model)


def _become(module: nn.Module, quantized: type[QuantizedLayer], name: str, rule: Rule, arithmetic: Arithmetic) -> None:
    module.__class__ = quantized
    assert isinstance(module, QuantizedLayer)
    module.configure(name, rule, arithmetic)


def set_precision(model: nn.Module, precision: Precision, blend: float = 1.0) -> None:
    """Let all quantized modules run at `precision`, with weights (1 - blend) w + blend w~; batch norms follow.

    While 0 <= blend < 1 products are of floats, since a blended weight has no codes.
    """
    for module in quantized_modules(model).values():
        module.set_precision(precision, blend)
    select(model, precision)


def precision_of(model: nn.Module) -> Precision:
    """The precision of a model's quantized modules; float if it has none."""
    return next((module.precision for module in quantized_modules(model).values()), Precision.float)


@contextmanager
def evaluated_at(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Inside, the model is in eval mode at `precision`; afterwards it is as before."""
    layer = next(iter(quantized_modules(model).values()))
    before, blend, training = layer.precision, layer.blend, model.training
    set_precision(model, precision)
    model.eval()
    try:
        yield
    finally:
        set_precision(model, before, blend)
        model.train(training)


def draw_noise(model: nn.Module, draw: int) -> int:
    """Let all analog weights be those of the chip `draw` in evaluation, and return how many layers have some.

    Noise of their outputs comes from torch's generator, which starts from `draw` too.
    """
    layers = [layer for layer in quantized_modules(model).values() if layer.analog_spec is not None]
    for layer in layers:
        layer.reprogram(draw)
    if layers:
        torch.manual_seed(draw)
    return len(layers)


def prune(model: nn.Module) -> None:
    """Draw the masks of all modules whose rule has `sparsity` again, from their present weights."""
    for module in quantized_modules(model).values():
        module.prune()


def freeze(model: nn.Module) -> None:
    """Replace the weights of quantized modules by integer codes and float16 scales, in place.

    The codes are those of the present precision at full blend; at float nothing is frozen. In evaluation the outputs
    stay the same, bit for bit. Only products of floats with weights of up to 4 bits may be summed in another order.

    A model that was prepared with the same rules and frozen takes the `state_dict` of another one: freeze it to make
    its buffers, then `load_state_dict`.
    """
    for module in quantized_modules(model).values():
        module.freeze_weights()
    settle(model)


def quantized_modules(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Name -> module, for each module that `prepare` gave a quantized type."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLayer)}

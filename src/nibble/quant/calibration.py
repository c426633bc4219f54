"""Statistics of a layer's inputs for rounding without training: second moments, or the largest magnitude."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.quant.convert import quantized_modules
from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import compute_type
from nibble.quant.quantized_type import QUANTIZED_TYPES

# (layer, inputs, output) -> the rows (G, rows, K) that each of the layer's weights is multiplied with.
Rows = Callable[[Any, tuple[Any, ...], Any], dict[str, Tensor]]

_FORWARDS = {quantized.forward for quantized in QUANTIZED_TYPES.values()}


def second_moments(model: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """X^T X of the inputs X (rows, K) of each weight, summed over all calls in `run`.

    Args:
        model: prepared, at `Precision.float`: each layer sees the inputs of the float model, not those that rounded
            layers before it would give.
        run: runs the model on calibration inputs. Padding counts as input, so give inputs without any.

    Returns:
        "<layer>.<weight>" -> (G, K, K): G groups of a convolution, whose rows are the unfolded windows, else 1.
        Absent: weights of a layer without a product (an embedding), of attention and of subclasses with a forward of
        their own, and of layers that `run` does not reach.
    """
    found: dict[str, Tensor] = {}
    hooks = []
    for name, module in quantized_modules(model).items():
        rows = _rows_of(module)
        if module.rule.weight is not None and rows is not None:
            hooks.append(module.register_forward_hook(_adder(found, name, rows), with_kwargs=True))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in hooks:
            handle.remove()
    return found


def settle_static_scales(model: nn.Module, run: Callable[[], object]) -> None:
    """Let the static activation scales of a prepared model follow its inputs in `run`; nothing else changes.

    Args:
        model: in eval mode, at the precision at which it will be used: each layer sees the outputs of the rounded
            layers before it.
        run: runs the model on calibration inputs; the average moves by 5 % a call of a layer.
    """
    layers = [layer for layer in quantized_modules(model).values() if "activation_max" in layer._buffers]
    for layer in layers:
        layer.train()
    try:
        with torch.no_grad():
            run()
    finally:
        for layer in layers:
            layer.eval()


def _adder(found: dict[str, Tensor], name: str, rows: Rows) -> Callable[..., None]:
    """A forward hook that adds the second moments of the layer `name` to `found`."""

    def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for weight, x in rows(module, (*args, *kwargs.values()), output).items():
            x = x.to(compute_type(x))
            moment = x.transpose(1, 2) @ x
            key = f"{name}.{weight}"
            found[key] = found[key].add_(moment) if key in found else moment

    return add


def _rows_of(module: QuantizedLayer) -> Rows | None:
    if type(module).forward not in _FORWARDS:  # a subclass's own, which may give the product another input
        return None
    if isinstance(module, nn.Linear):
        return _linear_rows
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return _convolution_rows
    if isinstance(module, nn.LSTM):
        return _lstm_rows
    return None


def _linear_rows(_module: nn.Linear, inputs: tuple[Any, ...], _output: Tensor) -> dict[str, Tensor]:
    return {"weight": inputs[0].reshape(1, -1, inputs[0].shape[-1])}


def _convolution_rows(module: nn.Conv1d | nn.Conv2d, inputs: tuple[Any, ...], _output: Tensor) -> dict[str, Tensor]:
    """The windows under the kernel: (G, B positions, C / G kernel)."""
    dimensions = len(module.kernel_size)
    x = inputs[0] if inputs[0].dim() == dimensions + 2 else inputs[0].unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    missing = (1,) * (2 - dimensions)
    kernel, dilation, stride = (missing + size for size in (module.kernel_size, module.dilation, module.stride))
    windows = F.unfold(x.unsqueeze(2) if missing else x, kernel, dilation, stride=stride)  # (B, C kernel, positions)
    return {"weight": windows.unflatten(1, (module.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)}


def _lstm_rows(_module: nn.LSTM, inputs: tuple[Any, ...], output: Any) -> dict[str, Tensor]:
    """The input of each step, and the hidden state before it: the output of the step before."""
    x, state = inputs[0], inputs[1] if len(inputs) > 1 else None
    outputs = output[0]
    if state is None:
        first = torch.zeros_like(outputs[..., :1, :])
    else:
        first = state[0].transpose(0, 1) if x.dim() == 3 else state[0]
    hidden = torch.cat((first, outputs[..., :-1, :]), -2)
    return {
        "weight_ih_l0": x.reshape(1, -1, x.shape[-1]),
        "weight_hh_l0": hidden.reshape(1, -1, hidden.shape[-1]),
    }

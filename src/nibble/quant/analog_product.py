"""The product of an activation and a weight on tiles: converters round and clip what goes in and what comes out.

    y = sum over tiles of C(W x + output_noise a b n)       C(y) = clip(round(y / s)) s,  s = output_bound a b / Q
    a = max|x| of the row, or of the utterance in a convolution      b = max|W| of the tile      n from N(0, 1)

with Q = 2^(b-1) - 1 of `output_bits`. The converter of inputs is the activation of the rule. The sum over tiles and
the bias are digital, as in Rasch et al. (2023) and Ambrogio et al. (2023). Gradients pass straight through rounding,
and not where an output is clipped.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nibble.quant.analog import inputs_of_tile, largest_of_tiles
from nibble.quant.analog_spec import AnalogSpec
from nibble.quant.gradients import inside_clip, straight_through
from nibble.quant.numerics import compute_type, largest_code, quantize
from nibble.quant.spec import Range


def tiled(
    x: Tensor, weight: Tensor, spec: AnalogSpec, dims: tuple[int, ...], product: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The product without bias.

    Args:
        x: the values of the activation's codes, (..., K), or (B, C, H, W) for a convolution.
        weight: as programmed, (N, K) or (N, C, kh, kw).
        spec: of the layer.
        dims: of x, those that share the range of a converter; the first is the dimension of the inputs, K or C.
        product: of x and a weight.
    """
    inputs = inputs_of_tile(weight, spec)
    total: Tensor | None = None
    for part, values in zip(weight.split(inputs, 1), x.split(inputs, dims[0]), strict=True):
        outputs = product(values, part).to(compute_type(x))
        largest = largest_of_tiles(part.detach(), spec)
        unit = values.detach().abs().amax(dims, keepdim=True) * largest.view(-1, *[1] * (part.dim() - 2))
        converted = _converted(outputs, unit.to(outputs.dtype), spec)
        total = converted if total is None else total + converted
    assert total is not None, "a weight has inputs"
    return total


def _converted(outputs: Tensor, unit: Tensor, spec: AnalogSpec) -> Tensor:
    """C(y). unit: a b, which broadcasts to the outputs."""
    bound = (spec.output_bound * unit).clamp(min=torch.finfo(unit.dtype).tiny)
    noisy = outputs + spec.output_noise * unit * torch.randn_like(outputs)
    step = bound / largest_code(spec.output_bits)
    codes = quantize(noisy.detach(), step, spec.output_bits, Range.narrow)
    return straight_through(inside_clip(noisy, bound), codes * step)

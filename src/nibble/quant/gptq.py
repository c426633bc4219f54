"""Rounding in which later weights make up for the errors of earlier ones: GPTQ (Frantar et al., 2022, 2210.17323).

Rounding to nearest makes |W - W~| small. What matters is the error of a layer's output over calibration inputs
X (rows, K):

    |X (W - W~)^T|^2 = tr (W - W~) H (W - W~)^T          H = X^T X

With U upper triangular and U^T U = H^-1, weights are rounded one input after another. The weights of the inputs that
are left compensate each error as far as they can, for all output channels at once:

    e_k = (w_k - w~_k) / U_kk          w_j -= e_k U_kj     for all j > k

The scales are those of rounding to nearest, and do not change.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.quant.convert import quantized_modules
from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import compute_type, quantize
from nibble.quant.spec import Range, WeightSpec
from nibble.quant.tensor import QuantizedTensor, in_slices

DAMPING = 0.01  # of the mean of H's diagonal, added to it
BLOCK = 128  # inputs; the errors of a block reach the weights after it in one product


class OutputError(NamedTuple):
    """|X (W - W~)^T|^2 of one weight over the calibration inputs."""

    nearest: float
    gptq: float


def freeze_gptq(model: nn.Module, moments: dict[str, Tensor]) -> dict[str, OutputError]:
    """Freeze the layers that have calibration inputs, in place. All others stay as they are, for `freeze`.

    Args:
        model: prepared, at the precision to freeze at.
        moments: of `nibble.quant.calibration.second_moments`.

    Returns:
        "<layer>.<weight>" -> its error, for each weight that was frozen.

    Raises:
        UserError: NaN or infinity in a weight or in the inputs.
    """
    errors = {}
    for name, layer in quantized_modules(model).items():
        keys = {weight: f"{name}.{weight}" for weight in layer.weight_names}
        if layer.weight_spec is None or layer.frozen or not moments.keys() >= set(keys.values()):
            continue
        if not all(torch.isfinite(moments[key]).all() for key in keys.values()):
            raise UserError(f"{name}: NaN or infinity in its calibration inputs; look at the layers before it")
        found = {}
        for weight, key in keys.items():
            found[weight], errors[key] = _rounded(layer, weight, layer.weight_spec, moments[key])
        layer.freeze_codes(found)
    return errors


@torch.no_grad()
def _rounded(layer: QuantizedLayer, name: str, spec: WeightSpec, moment: Tensor) -> tuple[QuantizedTensor, OutputError]:
    """A rounded weight of a layer, and its error. Its output channels are in the groups of the moment."""
    nearest = layer.quantized_weight(name)
    weight = getattr(layer, name)
    shape = (moment.shape[0], -1, moment.shape[-1])
    scale, zero, mask = (
        None if part is None else _full(part, weight).reshape(shape)
        for part in (nearest.scale, nearest.zero, layer._buffers.get(f"{name}_mask"))
    )
    assert scale is not None
    grid = Grid(scale, zero, mask, spec)
    weight = weight.to(compute_type(weight)).reshape(shape)
    codes = round_with_feedback(weight, moment, grid)
    before = output_error(weight - QuantizedTensor(nearest.codes.reshape(shape), scale).dequantize(), moment)
    after = output_error(weight - QuantizedTensor(codes, scale).dequantize(), moment)
    # Clipping can keep errors from being compensated; an output channel that lost by it is rounded to nearest.
    codes = torch.where((after < before).unsqueeze(2), codes, nearest.codes.reshape(shape))
    found = nearest._replace(codes=codes.to(torch.int8).reshape(nearest.codes.shape))
    return found, OutputError(float(before.sum()), float(torch.minimum(before, after).sum()))


class Grid(NamedTuple):
    """The values that the weights (G, N, K) may take: each tensor has that shape."""

    scale: Tensor
    zero: Tensor | None  # None: symmetric
    mask: Tensor | None  # False: pruned, the code is 0
    spec: WeightSpec

    def codes(self, weight: Tensor, place: int) -> Tensor:
        """The nearest codes of the weights (G, N) at one input."""
        scale, bits = self.scale[..., place], self.spec.bits
        if self.zero is None:
            codes = quantize(weight, scale, bits, self.spec.range)
        else:
            codes = quantize(weight, scale, bits, Range.full, self.zero[..., place])
        return codes if self.mask is None else codes.mul_(self.mask[..., place])

    def reordered(self, order: Tensor) -> "Grid":
        """With the inputs of each group in another order (G, K)."""
        scale, zero, mask = (None if part is None else in_order(part, order) for part in self[:3])
        assert scale is not None
        return Grid(scale, zero, mask, self.spec)


def round_with_feedback(weight: Tensor, moment: Tensor, grid: Grid) -> Tensor:
    """The codes (G, N, K), in a floating type, of weights (G, N, K).

    Inputs are rounded in the order of falling power, so that most weights are left to compensate the largest errors.

    Args:
        weight: in the type computed with.
        moment: H before damping, (G, K, K). An input that was always 0 has no error to compensate.
        grid: the values that the weights may take.
    """
    order = moment.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    grid, weight = grid.reordered(order), in_order(weight, order)
    moment = in_order(in_order(moment, order).transpose(1, 2), order)
    factor = inverse_factor(moment).to(weight.dtype)
    codes = torch.empty_like(weight)
    inputs = weight.shape[2]
    for start in range(0, inputs, BLOCK):
        end = min(start + BLOCK, inputs)
        errors = torch.empty_like(weight[..., start:end])
        for place in range(start, end):
            codes[..., place] = grid.codes(weight[..., place], place)
            missed = weight[..., place] - QuantizedTensor(codes[..., place], grid.scale[..., place]).dequantize()
            error = missed / factor[:, place, place, None]
            weight[..., place:end] -= error.unsqueeze(2) * factor[:, None, place, place:end]
            errors[..., place - start] = error
        weight[..., end:] -= errors @ factor[:, start:end, end:]
    return in_order(codes, order.argsort(dim=1))


def inverse_factor(moment: Tensor) -> Tensor:
    """U, upper triangular, with U^T U = H^-1, H damped: (G, K, K) -> (G, K, K) float64.

    H = R R^T with R upper triangular is Cholesky's decomposition read backwards; U is the inverse of R.
    """
    damped = moment.double()
    power = damped.diagonal(dim1=1, dim2=2).clone()
    power += torch.where(power > 0, DAMPING * power.mean(1, keepdim=True), 1.0)
    damped = damped.diagonal_scatter(power, dim1=1, dim2=2)
    upper = torch.linalg.cholesky(damped.flip(1, 2)).flip(1, 2)
    identity = torch.eye(moment.shape[-1], dtype=torch.float64, device=moment.device)
    return torch.linalg.solve_triangular(upper, identity.expand_as(upper), upper=True)


def output_error(difference: Tensor, moment: Tensor) -> Tensor:
    """|X (w - w~)|^2 of each output channel: difference (G, N, K), moment (G, K, K) -> (G, N)."""
    return ((difference @ moment.to(difference.dtype)) * difference).sum(2)


def in_order(tensor: Tensor, order: Tensor) -> Tensor:
    """A copy of tensor (G, N, K) with the inputs of each group in the order (G, K)."""
    return tensor.gather(2, order.unsqueeze(1).expand_as(tensor))


def _full(part: Tensor, weight: Tensor) -> Tensor:
    """A scale, a zero point or a mask, repeated to the shape of the weight."""
    return part.expand_as(in_slices(weight, part)).reshape(weight.shape)

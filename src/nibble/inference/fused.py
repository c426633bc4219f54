"""Fuses a frozen encoder: the float steps between two integer products take one pass over memory.

Layer norm, SiLU and the first convolution's ReLU end in the codes that the next product takes; q, k and v share those
of their input; attention is one operator, and positions are projected once. Weights, scales and codes are those of the
frozen layers. Only float steps may be rounded in another order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.kernels import ops
from nibble.model.attention import RelativeAttention
from nibble.model.chunks import Past
from nibble.model.convolution import ConvolutionModule
from nibble.model.feed_forward import FeedForward
from nibble.model.padding import valid_frames
from nibble.model.subsampling import Subsampling
from nibble.model.transducer import Transducer
from nibble.quant.modules import QuantConv2d, QuantLinear
from nibble.runs.frozen import frozen_copy


def fused_copy(model: Transducer) -> Transducer:
    """The model frozen and fused, on the CPU."""
    copied = frozen_copy(model)
    fuse(copied)
    return copied


def fuse(model: Transducer) -> None:
    """Give linear layers and the parts of the encoder their fused types, in place; what takes no codes stays.

    Afterwards the model can only recognise: it cannot be trained or exported.
    """
    for layer in model.modules():
        if type(layer) is QuantLinear and layer.takes_codes and not layer.quantized_weight().grouped:
            layer.__class__ = FusedLinear
    for module in model.encoder.modules():
        fused = _FUSED.get(type(module))
        if fused is None or not all(_takes_codes(getattr(module, name)) for name in fused.given_codes):
            continue
        module.__class__ = fused
        for layer in module.children():
            if isinstance(layer, QuantConv2d):  # whose operator would turn the filters at each call
                codes = layer.get_buffer("weight_codes")
                layer.weight_codes = codes.contiguous(memory_format=torch.channels_last)


class FusedLinear(QuantLinear):
    """As `QuantLinear`, straight to the operators: a search multiplies a few rows at a time, and a look-up shows."""

    # Codes (N, K), or packed, and scales (N,), on the device of the last input.
    kept: tuple[Tensor, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """input (..., K) -> (..., N)."""
        return self.of_codes(*ops.quantize_rows(input))

    def of_codes(self, codes: Tensor, scale: Tensor) -> Tensor:
        """codes int8 (..., K), scale (..., 1) -> float32 (..., N)."""
        kept = self.kept
        if kept is None or kept[0].device != codes.device:
            factor = self._frozen_factor("weight")
            weight = factor.quantized.codes if factor.packed is None else factor.packed
            kept = self.kept = weight, factor.quantized.channel_scale().contiguous()
        multiply = ops.linear_w4a8 if kept[0].dtype == torch.uint8 else ops.linear_w8a8
        rows = multiply(codes.flatten(0, -2), scale.view(-1, 1), *kept, self.bias)
        return rows.view(*codes.shape[:-1], rows.shape[1])


class FusedSubsampling(Subsampling):
    """As `Subsampling`."""

    given_codes = ("conv1", "conv2")

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> (B, T', D), (B,)."""
        if (missing := self.min_frames - features.size(1)) > 0:
            features = F.pad(features, (0, 0, 0, missing))
        halves = self._halved(lengths.clamp(min=self.min_frames))
        lengths = self._halved(halves)
        x = self._convolutions(features, halves)
        x = x.mul_(valid_frames(lengths, x.size(2)).unsqueeze(1)).relu_()
        return self.output(x.permute(0, 2, 3, 1).flatten(2)), lengths

    def without_padding(self, features: Tensor) -> Tensor:
        """features (R, T, F) -> (R, T', D)."""
        halves = torch.full(features.shape[:1], features.size(1), device=features.device)
        return self.output(self._convolutions(features, halves).relu_().permute(0, 2, 3, 1).flatten(2))

    def _convolutions(self, features: Tensor, halves: Tensor) -> Tensor:
        """features (B, T, F), frames after the first convolution (B,) -> (B, C, T', F')."""
        first: QuantConv2d = self.conv1  # type: ignore[assignment]
        second: QuantConv2d = self.conv2  # type: ignore[assignment]
        codes, scale, _ = first.quantized_input(features.unsqueeze(1), (1, 2, 3)).quantized
        codes, scale = ops.conv2d_relu_quantize(
            codes, scale.view(-1), *_filters(first), first.bias, first.stride, halves
        )
        return ops.conv2d_w8a8(codes, scale, *_filters(second), second.bias, second.stride)


class FusedFeedForward(FeedForward):
    """As `FeedForward`."""

    given_codes = ("expansion", "projection")

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D). A frame is a row of its own, so padding needs no mask."""
        del valid
        hidden = _product(self.expansion, _normalized(self.norm, x))
        return _product(self.projection, ops.silu_quantize_rows(hidden))


class FusedAttention(RelativeAttention):
    """As `RelativeAttention`."""

    given_codes = ("query", "key", "value", "output")
    # The projected positions of the longest utterance so far, and how many are of keys at or before their query.
    # One value, so that threads see both change at once.
    kept: tuple[Tensor, int] | None = None

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor, past: Past | None = None) -> Tensor:
        """x (B, T, D), positions (left + 2T, D), valid (B, T, 1) -> (B, T, D)."""
        codes = _normalized(self.norm, x)
        query, key, value = (_product(layer, codes) for layer in (self.query, self.key, self.value))
        visible = valid
        if past is not None:
            key, value = past.extend(torch.cat((key, value), dim=2), past.left).chunk(2, dim=2)
            visible = past.visible
        attended = ops.relative_attention(
            query,
            key,
            value,
            self._projected(positions, x.size(1)),
            self.content_bias,
            self.position_bias,
            visible.squeeze(2).expand(x.size(0), key.size(1)),
            self.heads,
        )
        return _product(self.output, ops.quantize_rows(attended))

    def _projected(self, positions: Tensor, frames: int) -> Tensor:
        """The projected positions (left + 2T, D): those that are kept, if they reach far enough both ways."""
        past, kept = positions.size(0) - frames, self.kept
        elsewhere = kept is not None and kept[0].device != positions.device
        if kept is None or elsewhere or kept[1] < past or len(kept[0]) - kept[1] < frames:
            kept = self.kept = self.position(positions), past
        start = kept[1] - past
        return kept[0][start : start + len(positions)]


class FusedConvolution(ConvolutionModule):
    """As `ConvolutionModule`."""

    given_codes = ("pointwise1", "pointwise2")

    def forward(self, x: Tensor, valid: Tensor, past: Past | None = None) -> Tensor:
        """x (B, T, D), valid (B, T, 1) -> (B, T, D)."""
        x = F.glu(_product(self.pointwise1, _normalized(self.norm, x)), dim=2).mul_(valid)
        if past is not None:
            x = past.extend(x, self.past_frames)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return _product(self.pointwise2, ops.silu_quantize_rows(self.normalized(x, valid)))


_FUSED: dict[type, type[FusedSubsampling | FusedFeedForward | FusedAttention | FusedConvolution]] = {
    Subsampling: FusedSubsampling,
    FeedForward: FusedFeedForward,
    RelativeAttention: FusedAttention,
    ConvolutionModule: FusedConvolution,
}


def _takes_codes(layer: nn.Module) -> bool:
    return isinstance(layer, QuantLinear | QuantConv2d) and layer.takes_codes


def _normalized(norm: nn.LayerNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of the rows of norm(x)."""
    return ops.norm_quantize_rows(x, norm.weight, norm.bias, norm.eps)


def _filters(layer: QuantConv2d) -> tuple[Tensor, Tensor]:
    """Codes (N, C, kh, kw) and scales (N,)."""
    quantized = layer.quantized_weight()
    return quantized.codes, quantized.channel_scale()


def _product(layer: nn.Linear, codes: tuple[Tensor, Tensor]) -> Tensor:
    """The output of a layer for rows with these codes and scales."""
    assert isinstance(layer, QuantLinear)
    return layer.of_codes(*codes)

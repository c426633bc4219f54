"""The quantized form of `nn.MultiheadAttention`, which multiplies by its weights in one function call."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.quant.row_product import MultipliesRows
from nibble.quant.tensor import Factor, QuantizedTensor


class QuantMultiheadAttention(MultipliesRows, nn.MultiheadAttention):
    """Attention whose projections of query, key and value are quantized products.

    The output projection is a layer of its own, `out_proj`, to which `prepare` applies the same rule.
    """

    weight_names = ("in_proj_weight",)
    supported_options: ClassVar[dict[str, Any]] = {
        "_qkv_same_embed_dim": True,
        "bias_k": None,
        "bias_v": None,
        "add_zero_attn": False,
    }

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`: shapes, masks and results are the same.

        Raises:
            RuntimeError: is_causal without attn_mask, as in torch.
        """
        if self.in_float:
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        q, k, v = (self._heads(part) for part in self._projected(query, key, value, batched))
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(2, 3) / math.sqrt(self.head_dim)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(out.transpose(1, 2).flatten(2))  # (B, L, E)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, batched: bool) -> tuple[Tensor, ...]:
        """Query (B, L, E), key and value (B, S, E) times their parts of the weight."""
        weight, bias = self.weight_source("in_proj_weight").operand(), self.in_proj_bias
        if query is key and key is value:
            return self.linear(self._batch_first(query, batched), weight, bias).chunk(3, -1)
        parts, biases = _thirds(weight), (None,) * 3 if bias is None else bias.chunk(3)
        inputs = [self._batch_first(x, batched) for x in (query, key, value)]
        return tuple(self.linear(x, part, own) for x, part, own in zip(inputs, parts, biases, strict=True))

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, E) -> (B, H, T, E / H)."""
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(self, attention: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """What is added to the scores (B, H, L, S): attention mask (L, S) or (B H, L, S), padding (B, S) or (S,)."""
        total = None
        if attention is not None:
            total = _added(attention, q.dtype)
            if total.dim() == 3:
                total = total.view(q.shape[0], self.num_heads, *total.shape[1:])
        if padding is not None:
            hidden = _added(padding, q.dtype).view(q.shape[0], 1, 1, -1)
            total = hidden if total is None else total + hidden
        return total


def without_fast_paths(model: nn.Module) -> None:
    """Let torch's Transformer encoders run their layers: in evaluation they would multiply by float weights past them.

    Both attributes choose between a fused function and the layers, and nothing else.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores: of a bool mask, True is minus infinity."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


def _thirds(weight: Factor | Tensor) -> Sequence[Factor | Tensor]:
    """The parts (E, E) of a weight (3E, E) for query, key and value."""
    if isinstance(weight, Tensor):
        return list(weight.chunk(3))
    (codes, scale, zero), source, packed = weight

    def of(tensor: Tensor | None) -> Sequence[Any]:  # one scale for all counts for each
        return [tensor] * 3 if tensor is None or len(tensor) == 1 else tensor.chunk(3)

    quantized = map(QuantizedTensor, codes.chunk(3), of(scale), of(zero))
    return list(map(Factor, quantized, of(source), of(packed)))

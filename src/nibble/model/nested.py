"""Smaller networks within a larger one: `model.sizes`, as slimmable networks (Yu et al., 2019, arXiv 1812.08928).

A smaller size has the first blocks of the whole network, and in each the first heads, feed-forward units and channels.
So each of its weights is the corner of a weight of the whole network: its first rows and columns. Everything before
and after the blocks is shared as it is. Only batch norms are its own, with weights and statistics, since the
activations of fewer channels have another mean and variance.

`corners` cuts the weights out. To train a size, `NestedNetwork` lends it the corners for a step, so that gradients
reach the whole network's parameters. To take it out, the same corners are copied (`nibble.runs.sizes`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nibble.model.convolution import ConvolutionModule
from nibble.model.options import ModelConfig
from nibble.model.padding import MaskedBatchNorm

if TYPE_CHECKING:
    from nibble.model.transducer import Transducer

_OWN_NORM = "convolution.batch_norm."
_VALUE_AND_GATE = "convolution.pointwise1."  # its outputs are two halves: values, and gates for them


def add_size_norms(blocks: nn.ModuleList, config: ModelConfig) -> None:
    """Give each block a batch norm for every smaller size that has the block, in place: `convolution.size_norms`.

    They are numbered as in `config.sizes`; those without a block come last, as the largest size stands first.
    """
    sizes = [config.at_size(size.name) for size in config.sizes]
    for number, block in enumerate(blocks):
        convolution = _convolution(block)
        if convolution.batch_norm is not None:
            norms = [MaskedBatchNorm(size.channels) for size in sizes if number < size.layers]
            convolution.size_norms = nn.ModuleList(norms)


@torch.no_grad()
def start_size_norms(network: "Transducer") -> None:
    """Let the batch norms of smaller sizes start from those of the whole network: for weights of one without sizes."""
    for convolution in network.encoder.modules():
        if not isinstance(convolution, ConvolutionModule):  # a foundation encoder has none
            continue
        for norm in getattr(convolution, "size_norms", ()):
            assert convolution.batch_norm is not None, "norms of sizes stand beside that of the whole network"
            whole = convolution.batch_norm.state_dict()
            norm.load_state_dict({name: _corner(whole[name], own.shape) for name, own in norm.state_dict().items()})


def corners(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], size: int | None
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a size, by the names that they have in a network of that size alone.

    Args:
        tensors: of the whole network, by name; quantized layers may have brought some of their own.
        shapes: of the network of that size.
        size: its number in `ModelConfig.sizes`; None: the whole network, without the norms of smaller sizes.
    """
    for name, shape in shapes.items():
        source = name if size is None else name.replace(_OWN_NORM, _size_norm(size))
        yield name, _part(name, tensors[source], shape)


class NestedNetwork:
    """A smaller size of a network in training. It has no parameters of its own, and no part of it is registered.

    Args:
        whole: the trained network; it may be prepared for quantization.
        network: one of the smaller size, on the meta device, prepared alike. It becomes a part of this object.
        size: its number in `ModelConfig.sizes`.
    """

    def __init__(self, whole: "Transducer", network: "Transducer", size: int) -> None:
        self.network = network
        network.predictor, network.joiner = whole.predictor, whole.joiner
        own, large = network.encoder, whole.encoder
        own.normalization, own.subsampling, own.final_norm = large.normalization, large.subsampling, large.final_norm
        own.dropout = large.dropout
        for block, larger in zip(own.blocks, large.blocks, strict=False):
            convolution = _convolution(block)
            if convolution.batch_norm is not None:
                norm = _convolution(larger).get_submodule(f"size_norms.{size}")
                assert isinstance(norm, MaskedBatchNorm), type(norm)
                convolution.batch_norm = norm
        shared = {id(module) for module in whole.modules()}
        self._layers = [
            (name, module, whole.get_submodule(name))
            for name, module in network.named_modules()
            if name.startswith("encoder.blocks.") and id(module) not in shared
        ]

    @contextmanager
    def with_weights(self) -> Iterator["Transducer"]:
        """Inside, the network computes with the present weights of the whole one, and gradients go there."""
        before = [(module._parameters.copy(), module._buffers.copy()) for _, module, _ in self._layers]
        try:
            for prefix, module, large in self._layers:
                module.training = large.training
                for own, source in ((module._parameters, large._parameters), (module._buffers, large._buffers)):
                    for name, tensor in own.items():
                        found = source[name]
                        if tensor is not None and found is not None:
                            own[name] = _part(f"{prefix}.{name}", found, tensor.shape)
            yield self.network
        finally:
            for (_, module, _), (parameters, buffers) in zip(self._layers, before, strict=True):
                module._parameters.update(parameters)
                module._buffers.update(buffers)


def _convolution(block: nn.Module) -> ConvolutionModule:
    found = block.get_submodule("convolution")
    assert isinstance(found, ConvolutionModule), type(found)
    return found


def _size_norm(size: int) -> str:
    return f"convolution.size_norms.{size}."


def _part(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """What a smaller network uses of a tensor of the whole one: the tensor itself if both have one shape."""
    if tensor.shape == shape:
        return tensor
    if _VALUE_AND_GATE in name and tensor.shape[0] != shape[0]:
        half = torch.Size((shape[0] // 2, *shape[1:]))
        return torch.cat([_corner(part, half) for part in tensor.chunk(2)])
    return _corner(tensor, shape).contiguous()


def _corner(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The first rows, columns and so on."""
    return tensor[tuple(slice(length) for length in shape)]

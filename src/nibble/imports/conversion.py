"""Tensors of another toolkit to the state of our `Transducer`, none forgotten on either side."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.features.options import FeatureConfig
from nibble.model.options import ModelConfig
from nibble.model.transducer import Transducer
from nibble.runs.finite import not_finite
from nibble.runs.loaded import check_state
from nibble.shapes import shapes_only

SHOWN = 5


class Conversion:
    """Takes tensors out of a checkpoint one by one, and gathers ours.

    Args:
        path: of the checkpoint, for messages.
        tensors: its tensors by name, of any float type.
    """

    def __init__(self, path: Path, tensors: Mapping[str, object]) -> None:
        self.state: dict[str, Tensor] = {}
        self._path = path
        self._left = dict(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Tensor:
        """The tensor of that name in float32 (integers stay), which is then used.

        Raises:
            UserError: it is not there.
        """
        if name not in self._left:
            raise UserError(f"{self._path} has no tensor {name}: it is not the model that it describes, or incomplete")
        tensor = self._left.pop(name)
        if not isinstance(tensor, Tensor):
            raise UserError(
                f"{self._path} has {type(tensor).__name__} as {name}, which is no tensor; download it again"
            )
        tensor = tensor.detach()
        return tensor.float() if tensor.is_floating_point() else tensor

    def linear(self, source: str, target: str) -> None:
        """A Linear, or a convolution of width 1, with the bias if there is one, else with zeros."""
        weight = self.take(f"{source}.weight")
        weight = weight.flatten(1) if weight.dim() > 2 else weight
        bias = f"{source}.bias"
        self.state[f"{target}.weight"] = weight
        self.state[f"{target}.bias"] = self.take(bias) if bias in self else torch.zeros(len(weight))

    def convolution(self, source: str, target: str) -> None:
        """A convolution as it is, with the bias if there is one, else with zeros."""
        weight, bias = self.take(f"{source}.weight"), f"{source}.bias"
        self.state[f"{target}.weight"] = weight
        self.state[f"{target}.bias"] = self.take(bias) if bias in self else torch.zeros(len(weight))

    def norm(self, source: str, target: str) -> None:
        """A LayerNorm, or a BatchNorm with its statistics."""
        for name in ("weight", "bias", "running_mean", "running_var"):
            if f"{source}.{name}" in self:
                self.state[f"{target}.{name}"] = self.take(f"{source}.{name}")
        if f"{target}.running_mean" in self.state:
            tracked = f"{source}.num_batches_tracked"
            self.state[f"{target}.num_batches_tracked"] = self.take(tracked) if tracked in self else torch.tensor(0)

    def finished(
        self, model: ModelConfig, features: FeatureConfig, labels: int | None, unused: tuple[str, ...]
    ) -> None:
        """Check that everything is there and everything was used.

        Args:
            model: the shape of our network.
            features: what it hears.
            labels: V; None of an encoder without labels.
            unused: beginnings of names that have no use here.

        Raises:
            UserError: a tensor of the checkpoint was not used, one of ours is missing or has another shape, or one has
                a value that is not finite.
        """
        forgotten = [name for name in self._left if not unused or not name.startswith(unused)]
        if forgotten:
            more = f" and {len(forgotten) - SHOWN} more" if len(forgotten) > SHOWN else ""
            raise UserError(
                f"{self._path} has weights that this project has no place for: {', '.join(forgotten[:SHOWN])}{more}"
            )
        self.state = {name: tensor.contiguous() for name, tensor in self.state.items()}
        with shapes_only():
            whole = Transducer(model, features, labels or 1)
            part = whole if labels is not None else nn.ModuleDict({"encoder": whole.encoder})
            check_state(self._path, part, self.state)
        if (name := not_finite(self.state)) is not None:
            raise UserError(f"{self._path} holds NaN or infinity: {name} after the import")


def relative_attention(conversion: Conversion, source: str, target: str) -> None:
    """Attention with relative positions, by the names that it has in ESPnet and in NeMo."""
    for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output")):
        conversion.linear(f"{source}.linear_{theirs}", f"{target}.{ours}")
    conversion.state[f"{target}.position.weight"] = conversion.take(f"{source}.linear_pos.weight")
    for theirs, ours in (("u", "content_bias"), ("v", "position_bias")):
        conversion.state[f"{target}.{ours}"] = conversion.take(f"{source}.pos_bias_{theirs}").flatten()


def frequency_outer(weight: Tensor, channels: int) -> Tensor:
    """A projection (D, C F) of subsampled frames flattened by channel -> one of frames flattened by frequency.

    One of another shape comes back as it is, and `finished` refuses it.
    """
    if weight.dim() != 2 or weight.size(1) % channels:
        return weight
    return weight.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)


def blank_first(rows: Tensor) -> Tensor:
    """Rows (V, ...) of labels whose last one is blank -> blank first, the others in their order."""
    return rows.roll(1, 0)

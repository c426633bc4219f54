"""On a GPU a forward pass of quantized layers waits for nothing and copies nothing there; it is checked at its end."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import (
    ActivationGranularity,
    ActivationSpec,
    Arithmetic,
    Precision,
    QuantConfig,
    Rule,
    Sparsity,
    WeightScale,
    WeightSpec,
)
from nibble.quant.step import quantized_step

WAITING = {"_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "masked_select", "repeat_interleave"}


class Waits(TorchDispatchMode):
    """Notes operators that wait for a GPU, or move a tensor between it and the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        moved = len({tensor.device.type for tensor in tensors}) > 1
        if name in WAITING or (moved and name in ("_to_copy", "copy_")):
            self.found.append(name)
        return out


RULES = {
    "4 bits": Rule("**", WeightSpec(4), ActivationSpec(8)),
    "groups": Rule("**", WeightSpec(4, group_size=4), ActivationSpec(8)),
    "zero points": Rule("**", WeightSpec(4, symmetric=False), ActivationSpec(4)),
    "search": Rule("**", WeightSpec(4, scale=WeightScale.search), ActivationSpec(8)),
    "learned": Rule("**", WeightSpec(4, learned=True), ActivationSpec(8)),
    "signs": Rule("**", WeightSpec(1), ActivationSpec(8)),
    "sparse": Rule("**", WeightSpec(4), ActivationSpec(8), sparsity=Sparsity(2, 4)),
    "static": Rule("**", WeightSpec(4), ActivationSpec(8, static=True)),
    "per utterance": Rule("**", WeightSpec(4), ActivationSpec(8, ActivationGranularity.per_utterance)),
    "weights alone": Rule("**", WeightSpec(4)),
    "activations alone": Rule("**", None, ActivationSpec(8)),
}


@pytest.mark.parametrize(
    ("rule", "arithmetic", "blend"),
    [(rule, arithmetic, 1.0) for rule in RULES for arithmetic in Arithmetic] + [("4 bits", Arithmetic.native, 0.5)],
)
def test_a_forward_pass(rule, arithmetic, blend, monkeypatch):
    asked = []
    monkeypatch.setattr(Tensor, "__bool__", lambda tensor: asked.append(tensor) or True)
    monkeypatch.setattr("nibble.quant.finite._all_finite", lambda scale: asked.append(scale) or True)
    with FakeTensorMode(), torch.device("cuda"):
        network = nn.ModuleList([nn.Embedding(9, 8), nn.Linear(8, 4), nn.LSTM(4, 8, batch_first=True)])
        if rule != "groups":  # a convolution takes none
            network.append(nn.Conv1d(4, 4, 4, padding="same", groups=4))
            network.append(nn.Conv2d(4, 4, 3, stride=2, padding=1))
        prepare(network, QuantConfig("test", [RULES[rule]], arithmetic=arithmetic))
        set_precision(network, Precision.rules, blend)
        labels, images = torch.zeros(3, 4, dtype=torch.int64), torch.empty(3, 4, 9, 11)
        asked.clear()
        with Waits() as waits, quantized_step(network):
            embedding, linear, lstm, *convolutions = network
            x, _ = lstm(linear(embedding(labels)))
            if convolutions:
                convolutions[0](x[:, :, :4].transpose(1, 2))
                convolutions[1](images)
    assert not waits.found
    assert len(asked) == 1

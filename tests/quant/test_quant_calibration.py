"""Second moments against what the layers really compute, and static scales."""

import pytest
import torch
from torch import nn

from nibble.quant.calibration import second_moments, settle_static_scales
from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec

EVERYWHERE = QuantConfig("int4", [Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())])
CONVOLUTIONS = {
    "plain 1-D": (nn.Conv1d(6, 4, 3, bias=False), (2, 6, 11)),
    "depthwise": (nn.Conv1d(6, 6, 5, padding=2, groups=6, bias=False), (2, 6, 11)),
    "grouped 1-D, unbatched": (nn.Conv1d(6, 4, 3, groups=2, dilation=2, bias=False), (6, 11)),
    "strided 2-D": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False), (2, 3, 9, 7)),
    "same, circular": (nn.Conv2d(2, 4, 4, padding="same", padding_mode="circular", bias=False), (2, 2, 9, 7)),
}


def energy(weight: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """tr W H W^T: the energy of the outputs that a weight (N, ...) gives for inputs of these moments (G, K, K)."""
    weight = weight.detach().reshape(moment.shape[0], -1, moment.shape[-1])
    return (weight @ moment * weight).sum()


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_moments_of_a_convolution_say_how_strong_its_output_is(kind):
    convolution, shape = CONVOLUTIONS[kind]
    model = nn.Sequential(convolution)
    if not hasattr(model[0], "rule"):
        prepare(model, EVERYWHERE)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    moments = second_moments(model, lambda: model(x))
    assert moments.keys() == {"0.weight"}
    assert moments["0.weight"].shape[0] == convolution.groups
    torch.testing.assert_close(energy(model[0].weight, moments["0.weight"]), model(x).detach().square().sum())


def test_moments_of_a_linear_layer_add_up_over_calls():
    model = nn.Sequential(nn.Linear(5, 3, bias=False))
    prepare(model, EVERYWHERE)
    first, second = torch.randn(2, 4, 5), torch.randn(7, 5)

    def run() -> None:
        model(first)
        model(input=second)

    rows = torch.cat((first.reshape(-1, 5), second))
    torch.testing.assert_close(second_moments(model, run), {"0.weight": (rows.T @ rows)[None]})
    assert not model[0]._forward_hooks, "nothing is left on the model"


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_moments_of_an_lstm(started, batched):
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 3, batch_first=True)
    model = nn.ModuleDict({"lstm": lstm})
    prepare(model, EVERYWHERE)
    x = torch.randn(2, 5, 4) if batched else torch.randn(5, 4)
    state = tuple(torch.randn(1, 2, 3) if batched else torch.randn(1, 3) for _ in range(2)) if started else None
    moments = second_moments(model, lambda: lstm(x, state))
    # The same, a step at a time.
    rows, hidden = [], []
    steps = x.unbind(-2)
    now = state or tuple(torch.zeros(1, 2, 3) if batched else torch.zeros(1, 3) for _ in range(2))
    for step in steps:
        rows.append(step.reshape(-1, 4))
        hidden.append(now[0].reshape(-1, 3))
        now = lstm(step.unsqueeze(-2), now)[1]
    for name, parts in [("weight_ih_l0", rows), ("weight_hh_l0", hidden)]:
        expected = torch.cat(parts).detach()
        torch.testing.assert_close(moments[f"lstm.{name}"], (expected.T @ expected)[None])


def test_what_is_not_reached_or_has_no_product_is_absent():
    model = nn.ModuleDict({"table": nn.Embedding(5, 4), "used": nn.Linear(4, 2), "unused": nn.Linear(4, 2)})
    prepare(model, EVERYWHERE)
    moments = second_moments(model, lambda: model["used"](model["table"](torch.tensor([1, 2]))))
    assert moments.keys() == {"used.weight"}


def test_hooks_go_when_the_run_fails():
    model = nn.Sequential(nn.Linear(4, 2))
    prepare(model, EVERYWHERE)
    with pytest.raises(RuntimeError):
        second_moments(model, lambda: model(torch.zeros(1, 3)))
    assert not model[0]._forward_hooks


def test_static_scales_settle_and_nothing_else_moves():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 2)).eval()
    rules = [
        Rule("0", WeightSpec(), ActivationSpec(static=True)),
        Rule("3", WeightSpec(), ActivationSpec()),
    ]
    prepare(model, QuantConfig("static", rules))
    set_precision(model, Precision.rules)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(8, 4)
    settle_static_scales(model, lambda: [model(x * scale) for scale in (1.0, 3.0)])
    after = model.state_dict()
    torch.testing.assert_close(after.pop("0.activation_max"), x.abs().max() * (0.95 + 0.05 * 3))
    del before["0.activation_max"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not any(module.training for module in model.modules())

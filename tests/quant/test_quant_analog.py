"""Simulated tiles of an analog memory: the published noise and drift, converters, and layers made of both."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from rounded import by_rule, first, gradients
from torch import nn

from nibble.errors import UserError
from nibble.quant.analog import in_training, in_use
from nibble.quant.analog_product import tiled
from nibble.quant.analog_spec import AnalogSpec
from nibble.quant.convert import freeze
from nibble.quant.spec import ActivationSpec, Arithmetic, Rule, WeightSpec

EXACT = AnalogSpec(noise=0.0, training_noise=0.0, drift=0.0, output_noise=0.0, output_bound=20.0)
LAYERS = {
    "linear": (lambda: nn.Linear(12, 7), (3, 5, 12)),
    "wide": (lambda: nn.Linear(600, 520), (2, 600)),
    "1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (3, 4, 11)),
    "2d": (lambda: nn.Conv2d(64, 5, 3, stride=2), (2, 64, 9, 11)),
    "lstm": (lambda: nn.LSTM(8, 4, batch_first=True), (3, 4, 8)),
}


@pytest.mark.parametrize("conductance", [0.25, 1.0])
def test_noise_of_programming_is_as_published(conductance):
    """A share of the largest weight: (-1.1731 g^2 + 1.9650 g + 0.2635) of 25 uS."""
    torch.manual_seed(0)
    weight = torch.full((400, 400), -conductance)
    weight[0, 0] = 1.0
    error = (in_training(weight, AnalogSpec(training_noise=1.0)) - weight).flatten()[1:]
    published = (-1.1731 * conductance**2 + 1.9650 * conductance + 0.2635) / 25
    other = 0.2635 / 25  # of the second conductance of the pair, which is 0, and cannot be below
    deviation = math.sqrt(published**2 + other**2 * (0.5 - 0.5 / math.pi))
    assert error.std() == pytest.approx(deviation, rel=0.01)


def test_drift_is_as_published_and_its_mean_is_compensated():
    """Exponents of 0.049 with a deviation of 0.008 at the largest conductance, from 20 s after programming on."""
    weight = torch.ones(400, 400)
    found = in_use(weight, AnalogSpec(noise=0.0, after_s=86_400.0), "layer", 0)
    assert found.mean() == pytest.approx(1.0, abs=1e-5)
    assert found.log().std() == pytest.approx(0.008 * math.log(86_420 / 20), rel=0.01)
    assert torch.equal(in_use(weight, AnalogSpec(noise=0.0, after_s=0.0), "layer", 0), weight)


def test_noise_of_reading_grows_with_time():
    weight = torch.ones(300, 300)
    deviations = [
        float(in_use(weight, AnalogSpec(drift=0.0, programming=[0.0, 0.0, 0.0], after_s=t), "w", 0).std())
        for t in (0.0, 1e7)
    ]
    published = [0.0088 * math.sqrt(math.log((t + 20) / 500e-9)) for t in (0.0, 1e7)]
    assert deviations == pytest.approx(published, rel=0.02)


def test_each_tile_has_the_noise_of_its_own_largest_weight():
    torch.manual_seed(0)
    weight = torch.cat([torch.full((512, 512), 1.0), torch.full((512, 512), 0.01)], 1)
    error = in_training(weight, AnalogSpec()) - weight
    assert error[:, :512].std() / error[:, 512:].std() == pytest.approx(100, rel=0.05)


def test_a_draw_is_one_chip():
    """The same weight in the same draw is the same; another weight, another draw and each step in training differ."""
    weight, spec = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), AnalogSpec()
    one = in_use(weight, spec, "one", 0)
    assert torch.equal(one, in_use(weight, spec, "one", 0))
    for other in (in_use(weight, spec, "one", 1), in_use(weight, spec, "two", 0), in_training(weight, spec)):
        assert not torch.equal(one, other)
    assert not torch.equal(in_training(weight, spec), in_training(weight, spec))


def test_outputs_are_rounded_and_clipped():
    weight, x = torch.tensor([[1.0, 0.5], [-1.0, -1.0]]), torch.tensor([[2.0, 1.0]])
    spec = AnalogSpec(output_noise=0.0, output_bits=3, output_bound=1.2)
    found = tiled(x, weight, spec, (-1,), F.linear)
    assert found.tolist() == [pytest.approx([2.4, -2.4])]  # 2.5 and -3 beyond 1.2 x 2 x 1
    small = tiled(x, weight / torch.tensor([[4.0], [1.0]]), spec, (-1,), F.linear)
    assert small.tolist() == [pytest.approx([0.8, -2.4])]  # 0.625, in steps of 2.4 / 3
    weight.requires_grad_()
    tiled(x, weight, spec, (-1,), F.linear).sum().backward()
    assert weight.grad.abs().sum() == 0


def test_noise_of_outputs_is_a_share_of_the_largest_product():
    torch.manual_seed(0)
    weight, x = torch.tensor([[0.5, 0.0]]), torch.tensor([[0.0, 3.0]]).expand(40_000, 2)
    found = tiled(x, weight, AnalogSpec(output_noise=0.04), (-1,), F.linear)
    assert found.std() == pytest.approx(math.hypot(0.04, 10 / 127 / math.sqrt(12)) * 1.5, rel=0.05)


@pytest.mark.parametrize("name", LAYERS)
def test_an_exact_layer_is_the_float_one_up_to_its_converters(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape)
    analog = by_rule(layer, Rule("**", None, ActivationSpec(8), analog=EXACT), Arithmetic.native).eval()
    expected = first(layer(x)).detach()
    error = first(analog(x)).detach() - expected
    assert 0 < error.square().mean().sqrt() < 0.1 * expected.square().mean().sqrt()
    theirs = gradients(layer, x)
    for parameter, gradient in gradients(analog, x).items():
        assert (gradient - theirs[parameter]).norm() < 0.1 * theirs[parameter].norm(), parameter


@pytest.mark.parametrize("name", LAYERS)
def test_a_frozen_layer_keeps_its_weights_and_its_draw(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    x = torch.randn(shape)
    trained = by_rule(
        make(), Rule("**", None, ActivationSpec(8), analog=AnalogSpec(output_noise=0.0)), Arithmetic.native
    )
    trained.eval()
    frozen = copy.deepcopy(trained)
    freeze(frozen)
    with torch.no_grad():
        first_draw = first(trained(x))
        assert torch.equal(first(frozen(x)), first_draw)
        frozen.draw = 1
        assert not torch.equal(first(frozen(x)), first_draw)
        frozen.draw = 0
        assert torch.equal(first(frozen(x)), first_draw)
        assert not torch.equal(first(trained.train()(x)), first_draw)


def test_what_fills_no_tile_is_refused():
    rule = Rule("**", None, ActivationSpec(8), analog=AnalogSpec())
    with pytest.raises(UserError, match=r"Conv1d.*analog .filters that hear some of the channels"):
        by_rule(nn.Sequential(nn.Conv1d(4, 4, 3, groups=4)), rule, Arithmetic.native)
    with pytest.raises(UserError, match=r'Embedding.*analog .a look-up is no product.; .*put {match: "1"} first'):
        by_rule(nn.Sequential(nn.Linear(3, 3), nn.Embedding(4, 4)), rule, Arithmetic.native)
    with pytest.raises(UserError, match="analog weights have no codes; leave weight and sparsity out"):
        Rule("**", WeightSpec(4), analog=AnalogSpec())
    with pytest.raises(UserError, match=r"analog.programming=\[0.1\]; give three numbers"):
        AnalogSpec(programming=[0.1])
    with pytest.raises(UserError, match=r"analog.output_bits=9; give 2 to 8"):
        AnalogSpec(output_bits=9)

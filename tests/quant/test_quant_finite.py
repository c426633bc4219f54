"""Scales that are not finite are found at once, or on a GPU at the end of a step; either way the first is named."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nibble.errors import UserError
from nibble.quant import finite
from nibble.quant.convert import prepare, set_precision
from nibble.quant.finite import checked_at_end, require_finite
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec


class Operators(TorchDispatchMode):
    """Counts calls."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def late(monkeypatch):
    """A CPU's scales are checked at the end, as a GPU's are."""
    monkeypatch.setattr(finite, "LATE_DEVICES", ("cpu",))


BAD = [float("nan"), float("inf")]


@pytest.mark.parametrize("bad", BAD)
def test_outside_and_on_a_cpu_at_once(bad):
    scale = torch.tensor([1.0, bad])
    with pytest.raises(UserError, match="here"):
        require_finite(scale, lambda: "here")
    with checked_at_end(), pytest.raises(UserError, match="here"):
        require_finite(scale, lambda: "here")
    require_finite(torch.ones(3), lambda: "here")
    require_finite(torch.ones(0), lambda: "here")


@pytest.mark.parametrize("bad", BAD)
def test_at_the_end_the_first_that_is_bad(bad, late):
    reached = []

    def step():
        for name, scale in {"first": [], "second": [1.0], "third": [[1.0], [bad]], "fourth": [bad, bad]}.items():
            with checked_at_end():  # only the outermost looks
                require_finite(torch.tensor(scale), lambda name=name: name)
            reached.append(name)

    with pytest.raises(UserError, match="third"), checked_at_end():
        step()
    assert reached[-1] == "fourth"
    with checked_at_end():
        require_finite(torch.ones(2), lambda: "good")


def test_what_was_raised_inside_stays(late):
    def step():
        require_finite(torch.tensor(BAD), lambda: "bad")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), checked_at_end():
        step()
    with checked_at_end():  # and nothing is left
        require_finite(torch.ones(2), lambda: "good")


def layers(static: bool = False) -> torch.nn.Sequential:
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    rule = Rule("**", WeightSpec(4), ActivationSpec(8, static=static))
    prepare(network, QuantConfig("test", [rule]))
    set_precision(network, Precision.rules, 1.0)
    return network


def test_layers_are_named_as_they_are_at_once(late):
    network = layers()
    with torch.no_grad():
        network[1].weight[2, 3] = float("nan")
    for inside in (checked_at_end(), torch.enable_grad()):
        with pytest.raises(UserError, match=r"1.weight: NaN or infinity in the weight"), inside:
            network(torch.ones(2, 4))
    with torch.no_grad():
        network[1].weight.fill_(1e6)
    with pytest.raises(UserError, match=r"1.weight: the largest weight is 1e\+06"), checked_at_end():
        network(torch.ones(2, 4))
    with pytest.raises(UserError, match=r"^0: NaN or infinity in the input"), checked_at_end():
        network(torch.full((2, 4), float("inf")))


def test_a_static_scale_that_was_never_calibrated(late):
    network = layers(static=True).eval()
    with pytest.raises(UserError, match=r"^0: its static activation scale was never calibrated"), checked_at_end():
        network(torch.ones(2, 4))
    with pytest.raises(UserError, match=r"^0: NaN or infinity in the input"), checked_at_end():
        network.train()(torch.full((2, 4), float("nan")))


def test_a_step_asks_a_gpu_for_one_value(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: asked.append(tensor) or True)
    for static in (False, True):
        asked.clear()
        with FakeTensorMode(), torch.device("cuda"), Operators() as operators:
            network = layers(static)
            operators.names.clear()
            with checked_at_end():
                network(torch.empty(2, 4))
        assert len(asked) == 1
        assert "_local_scalar_dense" not in operators.names

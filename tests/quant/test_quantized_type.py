"""Subclasses of the layers that have a quantized form, and torch's attention."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.quant.calibration import second_moments
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class Shifted(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Inherited(Shifted):
    pass


class Functional(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Past(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Linear.forward(self, x)


class Reading(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Standardized(nn.Conv1d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv1d(x, weight / weight.std(), bias)


def at(model: nn.Module, bits: int = 8, precision: Precision = Precision.rules) -> nn.Module:
    prepare(model, QuantConfig("test", [Rule("**", WeightSpec(bits), ActivationSpec(8))]))
    set_precision(model, precision)
    return model


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("kind", [Scaled, Shifted, Inherited])
def test_a_subclass_keeps_its_forward(kind: type[nn.Linear], normed: bool) -> None:
    """In float, quantized and frozen, with a weight of its own or one that weight_norm computes."""
    torch.manual_seed(0)
    layer = kind(8, 8)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(layer) if normed else layer)
    x = torch.randn(5, 8)
    expected = model(x)
    at(model, precision=Precision.float)
    assert torch.equal(model(x), expected)
    set_precision(model, Precision.rules)
    found = model.eval()(x)
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()
    freeze(model)
    assert torch.equal(model(x), found)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Functional, "does not call super"),
        (Past, "does not call super"),
        (Reading, r"reads self\.weight"),
        (lambda *sizes: Standardized(*sizes, 1), "does not call super"),
    ],
)
def test_a_subclass_whose_forward_would_be_lost_is_refused(kind: Any, why: str) -> None:
    with pytest.raises(UserError, match=rf'head \(\w+\) cannot be quantized.*{why}.*match: "head"'):
        at(nn.ModuleDict({"head": kind(8, 8)}))


def test_a_forward_put_on_the_object_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].forward = lambda x: x
    with pytest.raises(UserError, match="put on the object"):
        at(model)


def test_a_weight_of_a_hook_is_refused() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(UserError, match=r"parametrizations\.weight_norm"):
        at(model)


def test_the_inputs_of_a_subclass_are_not_taken_for_those_of_its_product() -> None:
    """GPTQ would compensate for other inputs than the product has; without moments it rounds to nearest."""
    model = at(nn.Sequential(Scaled(4, 4), nn.Linear(4, 4)), precision=Precision.float)
    assert set(second_moments(model, lambda: model(torch.randn(3, 4)))) == {"1.weight"}


@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_is_that_of_torch(batch_first: bool) -> None:
    """All masks, with and without weights, batched or not; one input for all three or three."""
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(16, 4, batch_first=batch_first)
    model = at(copy.deepcopy(reference))
    query, key, value = torch.randn(3, 4, 4, 16)
    padded = torch.zeros(4, 4, dtype=torch.bool)
    padded[0, 2:] = True
    options: list[dict[str, Any]] = [
        {},
        {"need_weights": False},
        {"average_attn_weights": False},
        {"key_padding_mask": padded},
        {"attn_mask": torch.ones(4, 4).triu(1).bool(), "is_causal": True},
        {"attn_mask": torch.randn(16, 4, 4), "need_weights": False},
        {"key_padding_mask": padded.float() * -9, "attn_mask": torch.randn(4, 4)},
    ]
    for inputs in ((query,) * 3, (query, key, value), (query, key, key)):
        for how in options:
            expected, expected_weights = reference(*inputs, **how)
            found, weights = model(*inputs, **how)
            assert (found - expected).norm() < 0.03 * expected.norm()
            if expected_weights is None:
                assert weights is None
            else:
                assert torch.allclose(weights, expected_weights, atol=0.02)
    assert model(query[0], key[0], value[0])[0].shape == (4, 16)


@pytest.mark.parametrize("options", [{"kdim": 8}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_that_has_no_quantized_form_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="cannot be quantized"):
        at(nn.ModuleDict({"a": nn.MultiheadAttention(16, 4, **options)}))


def test_an_encoder_of_torch_is_quantized_in_evaluation_too() -> None:
    """Its fast path multiplies by the weights of its layers itself, past the layers."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x, padded = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=padded)[0]
        at(model, bits=4)
        found = model(x, src_key_padding_mask=padded)
        assert 0.01 * expected.norm() < (found[0] - expected).norm() < 0.5 * expected.norm()
        freeze(model)
        assert torch.equal(model(x, src_key_padding_mask=padded), found)

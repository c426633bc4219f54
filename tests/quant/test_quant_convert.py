"""The life of a quantized model, on models that know nothing of speech."""

import copy

import pytest
import torch
import torchaudio
from torch import nn

from nibble.errors import UserError
from nibble.quant.convert import freeze, prepare, quantized_modules, set_precision
from nibble.quant.rules import coverage, quantized_share
from nibble.quant.spec import ActivationSpec, Arithmetic, Precision, QuantConfig, Rule, WeightSpec


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def everywhere(weight_bits: int, arithmetic: Arithmetic = Arithmetic.native) -> QuantConfig:
    return QuantConfig("test", [Rule("**", WeightSpec(weight_bits), ActivationSpec(8))], arithmetic)


def small_wav2vec2() -> nn.Module:
    torch.manual_seed(0)
    return torchaudio.models.wav2vec2_model(
        extractor_mode="layer_norm",
        extractor_conv_layer_config=[(32, 10, 5), (32, 3, 2), (32, 2, 2)],
        extractor_conv_bias=True,
        encoder_embed_dim=32,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=4,
        encoder_num_layers=2,
        encoder_num_heads=4,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=64,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=True,
        encoder_layer_drop=0.0,
        aux_num_out=7,
    )


def test_parameters_stay_the_same_objects():
    model = mlp()
    parameters, keys = list(model.parameters()), list(model.state_dict())
    prepare(model, everywhere(4))
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == keys
    model.load_state_dict(mlp().state_dict())
    mlp().load_state_dict(model.state_dict())
    assert list(quantized_modules(model)) == ["0", "2", "4"]


@pytest.mark.parametrize("arithmetic", list(Arithmetic))
def test_an_mlp_learns_at_four_bits(arithmetic):
    """From the first step on at W4A8, to a small fraction of the initial loss."""
    model = mlp()
    prepare(model, everywhere(4, arithmetic))
    set_precision(model, Precision.rules)
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(256, 8, generator=draw)
    target = (x[:, 0] * x[:, 1] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    losses = []
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("arithmetic", list(Arithmetic))
def test_wav2vec2(arithmetic):
    """Strided, grouped and weight-normalised convolutions and every Linear: trained, frozen, loaded."""
    model = small_wav2vec2()
    x = torch.randn(2, 4000)
    with torch.no_grad():
        expected, _ = model(x)
    prepare(model, everywhere(8, arithmetic))
    assert quantized_share(coverage(model)) > 0.9
    with torch.no_grad():
        assert torch.equal(model(x)[0], expected), "prepared but still in float"
    set_precision(model, Precision.rules)
    found, _ = model(x)
    assert 0 < (found - expected).norm() < 0.1 * expected.norm()
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in model.named_parameters() if "mask" not in n)
    model.eval()
    trained, _ = model(x)
    frozen = copy.deepcopy(model)
    freeze(frozen)
    assert torch.equal(frozen(x)[0], trained)
    fresh = small_wav2vec2().eval()
    for parameter in fresh.parameters():
        nn.init.constant_(parameter, 0.5)
    prepare(fresh, everywhere(8, arithmetic))
    set_precision(fresh, Precision.rules)
    freeze(fresh)
    fresh.load_state_dict(frozen.state_dict())
    assert torch.equal(fresh(x)[0], trained)


@pytest.mark.parametrize(("precision", "bits"), [(Precision.int8, 8), (Precision.rules, 4)])
def test_after_training_quantization(precision, bits):
    """A float model becomes integers without training: prepare, set_precision, freeze."""
    model = mlp()
    expected = model(x := torch.randn(64, 8))
    prepare(model, everywhere(4))
    set_precision(model, precision)
    freeze(model)
    assert not [name for name, _ in model.named_parameters() if name.endswith("weight")]
    for module in quantized_modules(model).values():
        assert module.weight_bits == bits
        codes, _, _ = module.frozen_weights()["weight"]
        assert codes.abs().amax() == 2 ** (bits - 1) - 1
    assert (model(x) - expected).norm() < (0.3 if bits == 4 else 0.03) * expected.norm()


def test_int8_leaves_unquantized_factors_alone():
    model = mlp()
    prepare(model, QuantConfig("w4", [Rule("0", WeightSpec(4)), Rule("**", WeightSpec(4), ActivationSpec(4))]))
    set_precision(model, Precision.int8)
    assert model[0].weight_spec == WeightSpec(8)
    assert model[0].activation_spec is None
    assert model[2].activation_spec == ActivationSpec(8)


def test_freezing_in_float_changes_nothing():
    model = mlp()
    prepare(model, everywhere(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze(model)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_freezing_takes_the_full_blend():
    half, full = mlp(), mlp()
    for model, blend in ((half, 0.5), (full, 1.0)):
        prepare(model, everywhere(4))
        set_precision(model, Precision.rules, blend)
        freeze(model)
    x = torch.randn(5, 8)
    assert torch.equal(half(x), full(x))


def test_mistakes():
    model = mlp()
    prepare(model, everywhere(4))
    with pytest.raises(UserError, match="prepared for quantization already"):
        prepare(model, everywhere(4))
    set_precision(model, Precision.rules)
    freeze(model)
    with pytest.raises(UserError, match="0 is frozen at precision rules"):
        set_precision(model, Precision.float)

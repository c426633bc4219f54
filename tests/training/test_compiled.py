"""Compiled blocks compute the integers that they compute without the compiler."""

import pytest
import torch

from nibble import composition
from nibble.quant.convert import prepare, quantized_modules, set_precision
from nibble.quant.spec import Precision
from nibble.runs.loaded import float_model
from nibble.training.compiled import compile_blocks


@pytest.fixture
def model(tiny_overrides, monkeypatch):
    config = composition.training_config([*tiny_overrides, "quant=int4", "model.dropout=0", "run_dir=."])
    torch.manual_seed(0)
    model = float_model(config, 20)
    prepare(model, config.quant)
    set_precision(model, Precision.rules)
    for kind in {type(layer) for layer in quantized_modules(model).values()}:
        monkeypatch.setattr(kind, "forward", kind.forward)  # put back after the test
    return model


def step(model, monkeypatch):
    """What the quantized layers of the encoder were given, what it gave, and a gradient."""
    taken = []
    for layer in quantized_modules(model.encoder).values():
        kind = type(layer)
        monkeypatch.setattr(layer, "quantized_input", lambda *given, kind=kind, layer=layer: note(kind, layer, *given))

    def note(kind, layer, *given):
        found = kind.quantized_input(layer, *given)
        taken.append(found.quantized.codes.clone())
        return found

    features = torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(1))
    encoded, _ = model.encode(features, torch.tensor([90, 61]))
    model.zero_grad()
    encoded.square().sum().backward()
    return taken, encoded.detach(), model.encoder.blocks[0].attention.query.weight.grad.clone()


def test_codes_are_those_without_the_compiler(model, monkeypatch):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    codes, encoded, gradient = step(model, monkeypatch)
    model.load_state_dict(before)
    compile_blocks(model, backend="aot_eager")  # the same graphs as for a GPU, run kernel by kernel
    assert all(block._compiled_call_impl is not None for block in model.encoder.blocks)
    codes_compiled, encoded_compiled, gradient_compiled = step(model, monkeypatch)
    assert len(codes) == len(codes_compiled) > 10
    assert all(torch.equal(a, b) for a, b in zip(codes, codes_compiled, strict=True))
    torch.testing.assert_close(encoded_compiled, encoded)
    torch.testing.assert_close(gradient_compiled, gradient)

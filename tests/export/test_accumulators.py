"""What you train is what you serve: layer by layer the int32 sums of a bundle are those of the trained model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nibble import composition
from nibble.kernels import ops
from nibble.kernels.nibbles import unpack_rows
from nibble.model.options import Predictor
from nibble.quant.convert import quantized_modules
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import float_model


def sums(layer: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The int32 results of every integer product in one forward pass of `layer`."""
    found: list[Tensor] = []

    def kept(product, integers):
        def keeping(*arguments):
            found.append(integers(*arguments).clone())  # what follows is rescaled in place
            return product(*arguments)

        return keeping

    def of_bytes(codes, _, weight, *__):
        return ops.int_matmul.reference(codes, weight)

    def of_nibbles(codes, _, packed, *__):
        return ops.int_matmul.reference(codes, unpack_rows(packed, codes.shape[1]))

    def of_windows(codes, _, weight, __, ___, *move):
        return ops.int_conv2d.reference(codes, weight, *move[:4])  # after them comes the result's type

    integers = {"conv2d_w8a8": of_windows, "linear_w8a8": of_bytes, "linear_w4a8": of_nibbles}
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        for name, its_integers in integers.items():
            patch.setattr(ops, name, kept(getattr(ops, name), its_integers))
        layer(*inputs)
    return found


def layer_inputs(model: nn.Module) -> dict[str, tuple[Tensor, ...]]:
    """What each quantized layer is given when two utterances are encoded and labels are predicted for them."""
    seen: dict[str, tuple[Tensor, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.setdefault(name, inputs))
        for name, layer in quantized_modules(model).items()
    ]
    features = torch.randn(2, 60, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        encoded, _ = model.encode(features, torch.tensor([60, 41]))
        model.joiner(encoded, model.predictor(torch.tensor([[0, 1, 2], [0, 3, 4]])))
    for hook in hooks:
        hook.remove()
    return seen


CASES = [(quant, Predictor.stateless) for quant in ("int8", "int4", "int4_24", "int2", "int1")]


@pytest.mark.parametrize(("quant", "predictor"), [*CASES, ("int4_24", Predictor.lstm)])
def test_of_each_layer(write_run, tmp_path: Path, quant: str, predictor: Predictor) -> None:
    rules = composition.training_config([f"quant={quant}", "run_dir=unused"]).quant
    loaded = load_checkpoint(write_run())
    if predictor is not loaded.config.model.predictor:
        config = replace(loaded.config, model=replace(loaded.config.model, predictor=predictor))
        loaded = replace(loaded, config=config, model=float_model(config, loaded.tokenizer.size))
    trained = quantize(loaded, rules)
    layers = quantized_modules(trained.model)
    weights = {f"{name}.{weight}" for name, layer in layers.items() for weight in layer.weight_names}
    for name, tensor in trained.model.state_dict().items():
        if (
            tensor.is_floating_point() and name not in weights
        ):  # stored in 16 bits: an LSTM's later inputs follow biases
            tensor.copy_(tensor.half().float())
    write_bundle(trained, tmp_path / "bundle")
    read = quantized_modules(read_bundle(tmp_path / "bundle").model)
    given = layer_inputs(trained.model)
    assert given.keys() == layers.keys() == read.keys()
    for name, layer in layers.items():
        expected, found = sums(layer, given[name]), sums(read[name], given[name])
        assert bool(expected) == layer.takes_activation, name
        assert not expected or any(product.any() for product in expected), name
        for mine, theirs in zip(expected, found, strict=True):
            assert mine.dtype == theirs.dtype == torch.int32
            assert torch.equal(mine, theirs), name

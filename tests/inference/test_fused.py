"""A fused encoder computes what the frozen one does, with the same integers."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nibble.commands import transcribe
from nibble.data.datamodule import SpeechDataModule
from nibble.evaluation.evaluate import evaluate_loaded
from nibble.evaluation.options import EvaluateConfig
from nibble.hardware import HardwareConfig
from nibble.inference import fused
from nibble.inference.fused import (
    FusedAttention,
    FusedConvolution,
    FusedFeedForward,
    FusedLinear,
    FusedSubsampling,
    fuse,
    fused_copy,
)
from nibble.model.attention import RelativeAttention, relative_positions
from nibble.model.block import ConformerBlock
from nibble.model.convolution import ConvolutionModule
from nibble.model.decoding import greedy
from nibble.model.feed_forward import FeedForward
from nibble.model.padding import valid_frames
from nibble.model.subsampling import Subsampling
from nibble.model.transducer import Transducer
from nibble.quant import finite
from nibble.quant.spec import ActivationSpec, LowRank, QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.frozen import frozen_copy

LENGTHS = torch.tensor([30, 17])


def pair(fitted, bits: int, chunk: int | None = None) -> tuple[Transducer, Transducer]:
    """A frozen model, and it fused."""
    model = fitted("stateless", bits, chunk).model
    return frozen_copy(model), fused_copy(model)


def assert_close(found: Tensor, expected: Tensor) -> None:
    """But for codes that are off by one where a value lies between two."""
    assert (found - expected).norm() < 5e-3 * expected.norm()


@pytest.mark.parametrize("bits", [4, 8])
def test_each_part_computes_what_it_did(fitted, bits: int) -> None:
    torch.manual_seed(0)
    frozen, faster = pair(fitted, bits)
    width = frozen.encoder.blocks[0].norm.normalized_shape[0]
    x, valid = torch.randn(2, 30, width), valid_frames(LENGTHS, 30)
    inputs = {
        "feed_forward1": (x, valid),
        "attention": (x, relative_positions(30, width, x.device), valid),
        "convolution": (x, valid),
    }
    with torch.inference_mode():
        for name, given in inputs.items():
            was, is_now = (model.encoder.blocks[0].get_submodule(name) for model in (frozen, faster))
            assert type(is_now).__name__.startswith("Fused")
            assert_close(is_now(*given) * valid, was(*given) * valid)
        features = torch.randn(2, 121, frozen.encoder.normalization.num_features)
        lengths = torch.tensor([121, 70])
        features *= valid_frames(lengths, 121)
        (found, count), (expected, expected_count) = (
            model.encoder.subsampling(features, lengths) for model in (faster, frozen)
        )
        assert torch.equal(count, expected_count)
        assert_close(found, expected)
        assert_close(*(model.encoder.subsampling.without_padding(features) for model in (faster, frozen)))


@pytest.mark.parametrize("chunk", [None, 8])
def test_on_a_gpu_nothing_is_made_elsewhere(fitted, monkeypatch: pytest.MonkeyPatch, chunk: int | None) -> None:
    """Tensors that stand for those of a GPU say if one of another device comes among them."""
    monkeypatch.setattr(finite, "_all_finite", lambda scale: True)  # they have no values
    model = fused_copy(fitted("stateless", 4, chunk).model)
    assert _fused(model.encoder)
    with FakeTensorMode(), torch.inference_mode():
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    setattr(module, name, nn.Parameter(_on_gpu(parameter)))
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    setattr(module, name, _on_gpu(buffer))
        features = torch.empty(2, 121, model.encoder.normalization.num_features, device="cuda")
        encoded, lengths = model.encode(features, torch.empty(2, dtype=torch.long, device="cuda"))
        assert (encoded.device.type, lengths.device.type) == ("cuda", "cuda")
        assert model.encoder.subsampling.without_padding(features).device.type == "cuda"


def _on_gpu(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


@pytest.mark.parametrize("chunk", [None, 8])
def test_the_same_labels_at_the_same_frames(fitted, tiny_corpus: Path, chunk: int | None) -> None:
    loaded = fitted("stateless", 4, chunk)
    data = SpeechDataModule(loaded.config.data, loaded.config.features, loaded.config.hardware, 1, tiny_corpus)
    (batch,) = data.dataloader(["dev-tiny"])
    found, expected = (
        [(each.ids, each.frames) for each in greedy(model, *model.encode(batch.features, batch.feature_lengths))]
        for model in reversed(pair(fitted, 4, chunk))
    )
    assert found == expected
    assert all(ids for ids, _ in found)


def test_an_utterance_among_others_is_itself(fitted) -> None:
    _, faster = pair(fitted, 4)
    features = torch.randn(1, 90, faster.encoder.normalization.num_features)
    with torch.inference_mode():
        alone, _ = faster.encode(features, torch.tensor([90]))
        filled = torch.nn.functional.pad(features, (0, 0, 0, 40))
        longer = torch.randn(1, 130, features.size(2))
        among, lengths = faster.encode(torch.cat((longer, filled)), torch.tensor([130, 90]))
    torch.testing.assert_close(among[1, : lengths[1]], alone[0], atol=1e-5, rtol=1e-5)


def test_chunk_by_chunk_is_the_whole(fitted) -> None:
    _, faster = pair(fitted, 4, 8)
    encoder = faster.encoder
    features = torch.randn(1, 4 * 8 * 3 + 3, encoder.normalization.num_features)
    with torch.inference_mode():
        whole, _ = encoder(features, torch.tensor([features.size(1)]))
        memory, encoded = encoder.start(1, features.device), []
        for number in range(3):
            chunk = features[:, 32 * number : 32 * number + 35]
            out, memory = encoder.step(chunk, memory, torch.tensor([8 * number]))
            encoded.append(out)
    torch.testing.assert_close(torch.cat(encoded, 1), whole[:, :24], atol=1e-5, rtol=1e-5)


def test_positions_are_projected_once(fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    _, faster = pair(fitted, 4)
    attention = faster.encoder.blocks[0].attention
    assert isinstance(attention, FusedAttention)
    width, projected = attention.norm.normalized_shape[0], []
    project = attention.position.forward
    monkeypatch.setattr(attention.position, "forward", lambda x: projected.append(len(x)) or project(x))
    outs = {}
    with torch.inference_mode():
        for frames in (12, 5, 12, 20, 5):
            x = torch.randn(1, frames, width, generator=torch.Generator().manual_seed(frames))
            out = attention(x, relative_positions(frames, width, x.device), torch.ones(1, frames, 1, dtype=torch.bool))
            torch.testing.assert_close(out, outs.setdefault(frames, out))
    assert projected == [24, 40]


TOKENS = ActivationSpec()


@pytest.mark.parametrize("bits", [4, 8])
def test_linear_layers_of_the_search_give_the_same_bits(fitted, bits: int) -> None:
    frozen, faster = pair(fitted, bits)
    for name in ("encoder", "predictor", "output"):
        was, is_now = (model.joiner.get_submodule(name) for model in (frozen, faster))
        assert type(is_now) is FusedLinear
        width = was.weight_codes.shape[1]
        with torch.inference_mode():
            for x in (torch.randn(2, 3, width), torch.randn(5, width), torch.randn(0, width)):
                assert torch.equal(is_now(x), was(x))


def test_a_linear_layer_with_groups_stays_as_it_is(fitted) -> None:
    rules = [Rule(match="joiner.*", weight=WeightSpec(4, group_size=4), activation=TOKENS)]
    loaded = quantize(fitted("stateless", None), QuantConfig("groups", rules))
    assert not any(isinstance(layer, FusedLinear) for layer in fused_copy(loaded.model).modules())


SLOWER = {
    "float": Rule(),
    "static": Rule(weight=WeightSpec(4), activation=replace(TOKENS, static=True)),
    "four bits": Rule(weight=WeightSpec(4), activation=ActivationSpec(4)),
    "weight only": Rule(weight=WeightSpec(4)),
}


@pytest.mark.parametrize("how", SLOWER)
def test_what_takes_other_codes_stays_as_it_is(fitted, how: str) -> None:
    rules = [
        replace(SLOWER[how], match="**.feed_forward1.projection"),
        replace(SLOWER[how], match="**.attention.key"),
        Rule(weight=WeightSpec(4), activation=TOKENS),
    ]
    loaded = quantize(fitted("stateless", None), QuantConfig("some", rules))
    for name, buffer in loaded.model.named_buffers():
        if name.endswith("activation_max"):
            buffer.fill_(3.0)
    frozen, faster = frozen_copy(loaded.model), fused_copy(loaded.model)
    block = faster.encoder.blocks[0]
    assert isinstance(block, ConformerBlock)
    assert type(block.feed_forward1) is FeedForward
    assert type(block.attention) is RelativeAttention
    assert (type(block.feed_forward2), type(block.convolution)) == (FusedFeedForward, FusedConvolution)
    features, lengths = torch.randn(1, 60, faster.encoder.normalization.num_features), torch.tensor([60])
    with torch.inference_mode():
        assert (faster.encode(features, lengths)[0] - frozen.encode(features, lengths)[0]).abs().mean() < 0.02


def test_what_is_in_factors_stays_as_it_is(fitted) -> None:
    rules = [Rule(weight=WeightSpec(4), activation=TOKENS)]
    in_factors = [LowRank("**.feed_forward1.expansion", 0.5)]
    loaded = quantize(fitted("stateless", None), QuantConfig("some", rules, low_rank=in_factors))
    block = fused_copy(loaded.model).encoder.blocks[0]
    assert isinstance(block, ConformerBlock)
    assert (type(block.feed_forward1), type(block.feed_forward2)) == (FeedForward, FusedFeedForward)


@pytest.mark.parametrize("bits", [None, 4])
def test_a_model_that_is_not_frozen_stays_as_it_is(fitted, bits: int | None) -> None:
    model = copy.deepcopy(fitted("stateless", bits).model)
    before = [type(module) for module in model.modules()]
    fuse(model)
    assert [type(module) for module in model.modules()] == before


def test_a_bundle_is_used_fused(write_run, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_checkpoint(write_run("int4", "rules"))
    write_bundle(trained, tmp_path / "bundle")
    loaded = load_checkpoint(tmp_path / "bundle")
    options = EvaluateConfig(checkpoint="x", hardware=HardwareConfig(accelerator="cpu"), records=None)
    evaluate_loaded(loaded, options)
    assert _fused(loaded.model.encoder)
    evaluate_loaded(trained, options)
    assert not _fused(trained.model.encoder)
    seen: list[Transducer] = []
    monkeypatch.setattr(transcribe, "fuse", lambda model: seen.append(model) or fused.fuse(model))
    speech = next((tiny_corpus / "LibriSpeech" / "dev-tiny").rglob("*.flac"))
    assert transcribe.main([f"model={tmp_path / 'bundle'}", str(speech)]) == 0
    assert [_fused(model.encoder) for model in seen] == [True]


def _fused(encoder: nn.Module) -> bool:
    fused_types = FusedSubsampling, FusedAttention, FusedConvolution
    floats = Subsampling | RelativeAttention | ConvolutionModule
    parts = [each for each in encoder.modules() if isinstance(each, floats)]
    return bool(parts) and all(isinstance(each, fused_types) for each in parts)

"""What `Encoder` promises, for every encoder of conf/model at a small size, and for options that no file there uses."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_transducer import FEATURES, MEL_BINS, tiny_config

from nibble.features.options import FeatureConfig, FeatureKind, Normalization
from nibble.model.encoder import Encoder
from nibble.model.options import ConvolutionNorm, FoundationConfig, FoundationKind, ModelConfig, SubsamplingKind
from nibble.model.transducer import make_encoder
from nibble.plain import build

KINDS: dict[str, dict[str, Any]] = {
    "conformer": {},
    "padded": {"subsampling": SubsamplingKind.padded},
    "fastconformer": {"subsampling": SubsamplingKind.depthwise, "subsampling_factor": 8, "subsampling_channels": 6},
    "fastconformer of 40 ms": {"subsampling": SubsamplingKind.depthwise, "final_norm": True},
    "layer norm": {"convolution_norm": ConvolutionNorm.layer, "final_norm": True},
    "streaming": {"chunk_frames": 4, "left_chunks": 2},
    "streaming, layer norm": {"chunk_frames": 3, "left_chunks": 1, "convolution_norm": ConvolutionNorm.layer},
}


# Of raw samples, a frame for each 6 of them.
SMALL: dict[str, Any] = {
    "channels": [8, 8],
    "kernels": [5, 2],
    "strides": [3, 2],
    "position_kernel": 8,
    "position_groups": 4,
}
LARGE = {**SMALL, "layer_norm": True, "norm_first": True, "bias": True}
KINDS["wav2vec 2.0"] = {"foundation": FoundationConfig(FoundationKind.wav2vec2, **SMALL)}
KINDS["large wav2vec 2.0"] = {"foundation": FoundationConfig(FoundationKind.wav2vec2, **LARGE)}
KINDS["HuBERT"] = {"foundation": FoundationConfig(FoundationKind.hubert, **SMALL)}
RAW = FeatureConfig(FeatureKind.samples, 1, Normalization.utterance)
CONFIGS = {kind: tiny_config(**options) for kind, options in KINDS.items()}
SIZES = {"width": 16, "layers": 2, "heads": 2, "kernel": 5, "dropout": 0.0, "subsampling_channels": 6}
CHUNKS = {"chunk_frames": 4, "left_chunks": 2}


def options_in(file: Path) -> dict[str, Any]:
    """The options of a file in conf/model, those of the files that it builds on included."""
    options = yaml.safe_load(file.read_text())
    below = [file.with_stem(name) for name in options.pop("defaults", []) if name != "_self_"]
    return {name: value for one in map(options_in, below) for name, value in one.items()} | options


def at_a_small_size(file: Path) -> ModelConfig:
    """The configuration of a file in conf/model, with small sizes in place of its own."""
    options = options_in(file)
    small = {**options, **SIZES, **{name: value for name, value in CHUNKS.items() if name in options}}
    if "foundation" in options:
        small["foundation"] = {**options["foundation"], **SMALL}
    return build(ModelConfig, small, file.stem)


def of_encoder(config: ModelConfig) -> dict[str, Any]:
    """The options that an encoder depends on."""
    others = ("name", "predictor", "joiner", "context", "embedding", "feed_forward", "subsampling_channels")
    return {name: value for name, value in asdict(config).items() if not name.startswith(others)}


for file in sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")):
    config = at_a_small_size(file)
    if of_encoder(config) not in map(of_encoder, CONFIGS.values()):
        CONFIGS[file.stem] = config


def make(kind: str, features: FeatureConfig = FEATURES) -> Encoder:
    torch.manual_seed(0)
    config = CONFIGS[kind]
    encoder = make_encoder(config, RAW if config.foundation else features).eval()
    for tensor in encoder.state_dict().values():  # biases and statistics other than zero
        tensor += 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else 0
    return encoder


@pytest.fixture(params=CONFIGS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return make(request.param)


@torch.no_grad()
def test_lengths_are_those_of_output_length(encoder: Encoder) -> None:
    frames = torch.tensor([1, 2, 3, 7, 8, 9, 15, 16, 17, 40, 41, 42, 43])
    encoded, lengths = encoder(torch.randn(len(frames), 43, encoder.mel_bins), frames)
    assert lengths.tolist() == [encoder.output_length(count) for count in frames.tolist()]
    assert lengths.tolist() == encoder.output_length(frames).tolist()
    assert encoded.shape == (len(frames), encoder.output_length(43), encoder.width)
    assert encoder.mel_bins in (MEL_BINS, 1)


def test_there_is_always_a_frame_and_more_speech_gives_no_fewer(encoder: Encoder) -> None:
    counts = [encoder.output_length(frames) for frames in range(1, 400)]
    assert counts[0] >= 1
    assert counts == sorted(counts)
    long = 10_000 * encoder.factor
    assert encoder.output_length(long) == pytest.approx(10_000, abs=4)


@pytest.mark.parametrize("kind", CONFIGS)
@settings(deadline=None, max_examples=10)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4), extra=st.integers(0, 20))
@torch.no_grad()
def test_neighbours_and_padding_change_nothing(kind: str, lengths: list[int], extra: int) -> None:
    encoder = make(kind)
    random = torch.Generator().manual_seed(len(lengths))
    features = torch.randn(len(lengths), max(lengths) + extra, encoder.mel_bins, generator=random) * 4 - 8
    encoded, counts = encoder(features, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone, (count,) = encoder(features[row : row + 1, :length], torch.tensor([length]))
        assert count == counts[row]
        torch.testing.assert_close(encoded[row, :count], alone[0, :count], atol=1e-5, rtol=1e-5)
        assert (encoded[row, count:] == 0).all()


@pytest.mark.parametrize(
    "kind", sorted(KINDS.keys() - {"wav2vec 2.0", "HuBERT"})
)  # whose first norm hears all of the speech
def test_a_frame_stands_for_the_features_around_it(kind: str) -> None:
    """The gradient of an encoded frame by the input of the subsampling reaches around factor * t."""
    encoder = make(kind)
    features = torch.randn(1, 160, encoder.mel_bins).requires_grad_()
    seen = []
    front = encoder.projection if hasattr(encoder, "projection") else encoder.subsampling  # type: ignore[attr-defined]
    hook = front.register_forward_hook(lambda _, args, output: seen.append(output))
    encoder(features, torch.tensor([160]))
    hook.remove()
    if not seen:  # a streaming encoder cuts rows first; its rows are tested in test_chunks.py
        return
    for frame in (3, 7):
        out = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        (gradient,) = torch.autograd.grad(out[0, frame].square().sum(), features, retain_graph=True)
        heard = gradient[0].abs().sum(1).nonzero()[:, 0]
        assert heard.min() <= encoder.factor * frame <= heard.max()
        assert heard.max() - heard.min() < 2 * encoder.factor


def test_without_normalization_features_go_in_as_they_are() -> None:
    features = FeatureConfig(mel_bins=MEL_BINS, normalization=Normalization.none)
    encoder = make("conformer", features)
    assert not any("normalization" in name for name in encoder.state_dict())  # type: ignore[attr-defined]
    seen = []
    encoder.subsampling.register_forward_pre_hook(lambda _, args: seen.append(args[0]))  # type: ignore[attr-defined]
    x = torch.randn(1, 30, MEL_BINS)
    encoder(x, torch.tensor([30]))
    assert torch.equal(seen[0], x)

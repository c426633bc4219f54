"""What `Encoder` promises, for every encoder that the options can ask for."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_transducer import FEATURES, MEL_BINS, tiny_config

from nibble.features.options import FeatureConfig, FeatureKind, Normalization
from nibble.model.encoder import Encoder
from nibble.model.options import ConvolutionNorm, FoundationConfig, FoundationKind, SubsamplingKind
from nibble.model.transducer import make_encoder

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


def make(kind: str, features: FeatureConfig = FEATURES) -> Encoder:
    torch.manual_seed(0)
    config = tiny_config(**KINDS[kind])
    encoder = make_encoder(config, RAW if config.foundation else features).eval()
    for tensor in encoder.state_dict().values():  # biases and statistics other than zero
        tensor += 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else 0
    return encoder


@pytest.fixture(params=KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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

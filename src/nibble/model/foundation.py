"""Encoders of raw samples that others pre-train: wav2vec 2.0 (Baevski et al., 2020) and HuBERT (Hsu et al., 2021)."""

from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureKind
from nibble.model.encoder import Count
from nibble.model.options import FoundationKind, ModelConfig
from nibble.model.padding import valid_frames
from nibble.packages import need


class FoundationEncoder(nn.Module):
    """An `Encoder` of transformers: strided convolutions over samples, then a transformer. F is 1.

    The convolutions take one utterance at a time: a norm over time, or one scale for a quantized input, would otherwise
    see what stands behind an utterance's end. The SpecAugment of transformers is off; data.spec_augment masks samples.

    Raises:
        UserError: the features are not raw samples, transformers is not installed, or sizes contradict each other.
    """

    normalization = None

    def __init__(self, config: ModelConfig, features: FeatureConfig) -> None:
        super().__init__()
        assert config.foundation is not None
        if features.kind is not FeatureKind.samples:
            raise UserError(f"model={config.name} hears raw samples, not {features.kind.value}; give features=samples")
        network = _network(config)
        self.convolutions = network.feature_extractor
        self.projection = network.feature_projection
        self.transformer = network.encoder
        self.kernels, self.strides = config.foundation.kernels, config.foundation.strides
        self.factor, self.width, self.mel_bins = prod(self.strides), config.width, 1
        self.min_frames = 1  # samples that one encoded frame hears
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            self.min_frames = (self.min_frames - 1) * stride + kernel

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers of the transformer."""
        blocks: nn.ModuleList = self.transformer.layers
        return blocks

    def output_length(self, frames: Count) -> Count:
        """As `Encoder` says."""
        frames = frames.clamp(min=self.min_frames) if isinstance(frames, Tensor) else max(frames, self.min_frames)
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            frames = (frames - kernel) // stride + 1
        return frames

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, 1), lengths (B,) -> encoded (B, T', D) with padding 0, encoded lengths (B,)."""
        utterances = [one[:length, 0] for one, length in zip(features, lengths.tolist(), strict=True)]
        heard = [self._convolved(samples) for samples in utterances]
        counts = self.output_length(lengths)
        x = self.projection(pad_sequence(heard, batch_first=True))
        x = x[0] if isinstance(x, tuple) else x  # wav2vec 2.0 gives its quantizer's input too
        valid = valid_frames(counts, x.size(1))
        encoded: Tensor = self.transformer(x, attention_mask=valid.squeeze(2)).last_hidden_state
        return encoded * valid, counts

    def _convolved(self, samples: Tensor) -> Tensor:
        """samples (T,) of one utterance, filled up with zeros if it is too short -> (T', C)."""
        if (missing := self.min_frames - len(samples)) > 0:
            samples = F.pad(samples, (0, missing))
        convolved: Tensor = self.convolutions(samples.unsqueeze(0))
        return convolved[0].t()


def _network(config: ModelConfig) -> Any:
    """The model of transformers, with fresh weights."""
    need("transformers", f"model={config.name}", extra="foundation")
    from transformers.models.hubert import HubertConfig, HubertModel
    from transformers.models.wav2vec2 import Wav2Vec2Config, Wav2Vec2Model

    given = config.foundation
    assert given is not None
    make, describe = {
        FoundationKind.wav2vec2: (Wav2Vec2Model, Wav2Vec2Config),
        FoundationKind.hubert: (HubertModel, HubertConfig),
    }[given.kind]
    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    return make(
        describe(
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.feed_forward_width,
            conv_dim=given.channels,
            conv_kernel=given.kernels,
            conv_stride=given.strides,
            conv_bias=given.bias,
            feat_extract_norm="layer" if given.layer_norm else "group",
            do_stable_layer_norm=given.norm_first,
            num_conv_pos_embeddings=given.position_kernel,
            num_conv_pos_embedding_groups=given.position_groups,
            mask_time_prob=0.0,
            apply_spec_augment=False,
            layerdrop=0.0,
            **dict.fromkeys(dropouts, config.dropout),
        )
    )

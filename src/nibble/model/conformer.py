"""The Conformer encoder (Gulati et al., 2020, figure 1)."""

from torch import Tensor, nn

from nibble.features.options import FeatureConfig, Normalization
from nibble.model.attention import relative_positions
from nibble.model.block import ConformerBlock
from nibble.model.dropout import Dropout
from nibble.model.encoder import Count
from nibble.model.nested import add_size_norms
from nibble.model.options import ModelConfig
from nibble.model.padding import MaskedBatchNorm, valid_frames
from nibble.model.subsampling import make_subsampling


class ConformerEncoder(nn.Module):
    """An `Encoder` of whole utterances: normalised log-mel, subsampling, blocks.

    With `features.normalization=corpus`, `normalization` learns mean and variance of each mel bin from the training
    speech, so that no file of statistics travels with a model, and the first convolution sees values around zero.
    """

    def __init__(self, config: ModelConfig, features: FeatureConfig) -> None:
        super().__init__()
        self.mel_bins = features.mel_bins
        self.width = config.width
        corpus = features.normalization is Normalization.corpus
        self.normalization = MaskedBatchNorm(features.mel_bins, affine=False) if corpus else None
        self.subsampling = make_subsampling(config, features.mel_bins)
        self.factor = self.subsampling.factor
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.layers))
        if config.sizes:
            add_size_norms(self.blocks, config)
        self.final_norm = nn.LayerNorm(config.width) if config.final_norm else None
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = config.norm_epsilon

    def output_length(self, frames: Count) -> Count:
        """As `Encoder` says."""
        return self.subsampling.output_length(frames)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> encoded (B, T', D) with padding 0, encoded lengths (B,)."""
        valid = valid_frames(lengths, features.size(1))
        features = self._normalized(features, valid) * valid
        x, lengths = self.subsampling(features, lengths)
        x = self.dropout(x)
        valid = valid_frames(lengths, x.size(1))
        positions = relative_positions(x.size(1), x.size(2), x.device)
        for block in self.blocks:
            x = block(x, positions, valid)
        return self._finished(x) * valid, lengths

    def _normalized(self, features: Tensor, valid: Tensor) -> Tensor:
        """features (B, T, F) by the statistics of the training speech, if the model has any."""
        if self.normalization is None:
            return features
        normalized: Tensor = self.normalization(features, valid)
        return normalized

    def _finished(self, x: Tensor) -> Tensor:
        """x (B, T', D) after the last block, through the last LayerNorm if the model has one."""
        if self.final_norm is None:
            return x
        finished: Tensor = self.final_norm(x)
        return finished

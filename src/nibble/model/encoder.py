"""The Conformer encoder (Gulati et al., 2020, figure 1)."""

from torch import Tensor, nn

from nibble.model.attention import relative_positions
from nibble.model.block import ConformerBlock
from nibble.model.dropout import Dropout
from nibble.model.options import ModelConfig
from nibble.model.padding import MaskedBatchNorm, valid_frames
from nibble.model.subsampling import Count, Subsampling, output_length


class ConformerEncoder(nn.Module):
    """Normalised log-mel, subsampling, blocks: (B, T, F) -> (B, T', D).

    `normalization` learns mean and variance of each mel bin from the training speech, so that no statistics file
    travels with a model, and the first convolution sees values around zero.
    """

    def __init__(self, config: ModelConfig, mel_bins: int) -> None:
        super().__init__()
        self.normalization = MaskedBatchNorm(mel_bins, affine=False)
        self.subsampling = Subsampling(mel_bins, config.subsampling_channels or config.width, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.layers))

    def output_length(self, frames: Count) -> Count:
        """Encoded frames of an utterance of `frames` feature frames: as `forward` counts them, on numbers too."""
        return output_length(frames)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> encoded (B, T', D) with padding 0, encoded lengths (B,)."""
        valid = valid_frames(lengths, features.size(1))
        features = self.normalization(features, valid) * valid
        x, lengths = self.subsampling(features, lengths)
        x = self.dropout(x)
        valid = valid_frames(lengths, x.size(1))
        positions = relative_positions(x.size(1), x.size(2), x.device)
        for block in self.blocks:
            x = block(x, positions, valid)
        return x * valid, lengths

"""A Conformer encoder that hears chunk by chunk: chunked attention, causal convolution, a bounded past.

Each frame attends to its own chunk and to `left_chunks` before it (Shi et al., 2021, Emformer, without its memory), and
the convolution sees the frames before a chunk. Positions are relative, so a frame in the cache needs none of its own.
"""

import torch
from torch import Tensor

from nibble.features.options import FeatureConfig
from nibble.model.attention import relative_positions
from nibble.model.chunks import Cached, Chunks, Neighbours, Past
from nibble.model.conformer import ConformerEncoder
from nibble.model.encoder import Count
from nibble.model.options import ModelConfig
from nibble.model.padding import valid_frames


class StreamingEncoder(ConformerEncoder):
    """An `Encoder` with the layers of `ConformerEncoder`, whose T' is a number of whole chunks.

    `forward` takes whole utterances and computes what `step` gives chunk by chunk.
    """

    def __init__(self, config: ModelConfig, features: FeatureConfig, chunk: int) -> None:
        super().__init__(config, features)
        self.chunks = Chunks(chunk, self.factor, self.subsampling.min_frames - self.factor)
        self.left = chunk * config.left_chunks
        self.kernel = config.kernel

    def output_length(self, frames: Count) -> Count:
        """As `Encoder` says: whole chunks."""
        return self.chunks.frames * self.chunks.count(frames)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> encoded (B, T', D) with padding 0, encoded lengths (B,)."""
        features = self.chunks.whole(features, lengths)
        # Silence that fills an utterance up has no part in the statistics: how much there is depends on the batch.
        features = self._normalized(features, valid_frames(lengths, features.size(1)))
        x = self.subsampling.without_padding(self.chunks.rows(features))  # (R, c, D)
        utterances, chunks = features.size(0), x.size(0) // features.size(0)
        lengths = self.output_length(lengths)
        valid = valid_frames(lengths, self.chunks.frames * chunks)
        past = Neighbours(utterances, chunks, self.left, self.chunks.frames, x.device)
        x = self._encoded(x, valid.reshape(-1, self.chunks.frames, 1), past)
        return x.reshape(utterances, -1, self.width) * valid, lengths

    def start(self, batch: int, device: torch.device) -> list[Tensor]:
        """What `step` remembers before anything was said: for each block, keys and values, and convolution frames."""
        frames = ((self.left, 2 * self.width), (self.kernel - 1, self.width))
        return [torch.zeros(batch, *shape, device=device) for _ in self.blocks for shape in frames]

    def step(self, features: Tensor, memory: list[Tensor], seen: Tensor) -> tuple[Tensor, list[Tensor]]:
        """One chunk of each utterance.

        Args:
            features: (B, 4 c + 3, F); the last 3 are the first of the next chunk.
            memory: of `start`, or of the step before.
            seen: frames encoded before, (B,).

        Returns:
            encoded (B, c, D), and what to remember.
        """
        whole = torch.ones(1, 1, 1, dtype=torch.bool, device=features.device)
        past = Cached(memory, seen, self.left, self.chunks.frames)
        x = self.subsampling.without_padding(self._normalized(features, whole))
        return self._encoded(x, whole, past), past.renewed

    def _encoded(self, x: Tensor, valid: Tensor, past: Past) -> Tensor:
        """Subsampled chunks x (R, c, D) -> (R, c, D)."""
        x = self.dropout(x)
        positions = relative_positions(self.chunks.frames, self.width, x.device, self.left)
        for block in self.blocks:
            x = block(x, positions, valid, past)
        return self._finished(x)

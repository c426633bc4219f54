"""Cuts speech into chunks for a streaming encoder, and gives each chunk the frames before it.

A chunk is c encoded frames. With a subsampling of 4 that looks 3 frames ahead, it takes 4 c feature frames and the 3
after them. Whole utterances go through the network with their chunks as rows, R = B n of n chunks each, and a chunk
finds the frames before it in its neighbours; in use they come from a cache. Nothing else differs, so what is trained is
what streams. That holds for scales of quantized activations too: a convolution has one for each row, so for each chunk.

An utterance that ends within a chunk is filled up with silence, and so are its features in training.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.model.encoder import Count
from nibble.model.padding import valid_frames

SILENCE = -15.9424  # log-mel of digital silence: the logarithm of float32's epsilon


@dataclass(frozen=True)
class Chunks:
    """The sizes of chunks."""

    frames: int  # c: encoded frames in a chunk
    factor: int  # feature frames from one encoded frame to the next
    look_ahead: int  # feature frames after a chunk's own that its last encoded frame sees

    def feature_frames(self, count: int = 1) -> int:
        """Feature frames that `count` chunks take, look-ahead included."""
        return self.factor * self.frames * count + self.look_ahead

    def count(self, frames: Count) -> Count:
        """Chunks that hold an utterance of `frames` feature frames: a number, or one for each utterance (B,)."""
        shortest = self.factor + self.look_ahead
        frames = frames.clamp(min=shortest) if isinstance(frames, Tensor) else max(frames, shortest)
        encoded = (frames - self.look_ahead) // self.factor
        return -(-encoded // self.frames)

    def whole(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Utterances (B, T, F) of `lengths` (B,), with silence after their ends -> (B, 4 c n + 3, F)."""
        silent = features.masked_fill(~valid_frames(lengths, features.size(1)), SILENCE)
        frames = self.feature_frames(self.count(features.size(1)))
        return F.pad(silent, (0, 0, 0, frames - features.size(1)), value=SILENCE)  # a negative padding cuts

    def rows(self, features: Tensor) -> Tensor:
        """Whole chunks of features (B, 4 c n + 3, F) -> one chunk in each row (R, 4 c + 3, F), R = B n."""
        windows = features.unfold(1, self.feature_frames(), self.factor * self.frames)
        return windows.transpose(2, 3).flatten(0, 1)


class Past:
    """The frames before each chunk.

    Args:
        seen: frames that were encoded before each chunk, (R,).
        left: frames before it that a chunk attends to.
        chunk: frames in it.
    """

    def __init__(self, seen: Tensor, left: int, chunk: int) -> None:
        self.left = left
        positions = torch.arange(left + chunk, device=seen.device)
        self.visible = (positions >= left - seen.unsqueeze(1)).unsqueeze(2)  # (R, left + c, 1)

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """x (R, c, D) -> (R, frames + c, D): one frame or more before the chunk, or zeros, and then it."""
        raise NotImplementedError


class Neighbours(Past):
    """The past of all chunks of whole utterances."""

    def __init__(self, utterances: int, chunks: int, left: int, chunk: int, device: torch.device) -> None:
        super().__init__(chunk * torch.arange(chunks, device=device).repeat(utterances), left, chunk)
        self.utterances = utterances

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """As `Past` says."""
        chunk = x.size(1)
        whole = F.pad(x.unflatten(0, (self.utterances, -1)).flatten(1, 2), (0, 0, frames, 0))  # (B, frames + n c, D)
        return whole.unfold(1, frames + chunk, chunk).transpose(2, 3).flatten(0, 1)


class Cached(Past):
    """The past of one chunk, from what the chunks before it left.

    Args:
        cache: (R, frames, D) for each call of `extend`, in their order.
        seen: as in `Past`.
        left: as in `Past`.
        chunk: as in `Past`.
    """

    def __init__(self, cache: list[Tensor], seen: Tensor, left: int, chunk: int) -> None:
        super().__init__(seen, left, chunk)
        self.cache = cache
        self.renewed: list[Tensor] = []  # for the next chunk

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """As `Past` says."""
        extended = torch.cat((self.cache[len(self.renewed)], x), dim=1)
        self.renewed.append(extended[:, -frames:])
        return extended

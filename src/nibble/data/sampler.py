"""Which utterances make a batch, and in which order."""

import random
from collections.abc import Iterator

from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from torch.utils.data import Sampler

from nibble.config import HardwareConfig

Item = tuple[int, int, CutSet]  # epoch, index of the batch in the epoch, its utterances


class TrainSampler(Sampler[Item]):
    """Epoch after epoch without end, from a given batch on. Only metadata is touched, so skipping is cheap.

    Each epoch is shuffled as a whole, then drawn from buckets of similar duration. What an epoch holds depends on
    the utterances, the seed and the epoch alone.
    """

    def __init__(
        self,
        cuts: CutSet,
        hardware: HardwareConfig,
        seed: int,
        start: tuple[int, int] = (0, 0),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.cuts = list(cuts)
        self.hardware = hardware
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size
        self.bounds_s = self._bucket_bounds_s()

    def __iter__(self) -> Iterator[Item]:
        epoch, first = self.start
        while True:
            for index, cuts in enumerate(self.epoch(epoch)):
                if index >= first:
                    yield epoch, index, cuts
            epoch, first = epoch + 1, 0

    def epoch(self, epoch: int) -> Iterator[CutSet]:
        """The batches of one epoch."""
        seed = self.seed * 1_000_003 + epoch
        shuffled = self.cuts.copy()
        random.Random(seed).shuffle(shuffled)
        sampler: DynamicBucketingSampler = DynamicBucketingSampler(
            shuffled,
            max_duration=self.hardware.batch_duration_s,
            max_cuts=self.hardware.max_batch_utterances,
            duration_bins=self.bounds_s,
            shuffle=True,
            seed=seed,
            # Devices draw from the same bucket. Without this, Lhotse 1.33 ends an epoch at the first empty bucket.
            sync_buckets=True,
            rank=self.rank,
            world_size=self.world_size,
        )
        return iter(sampler)

    def _bucket_bounds_s(self) -> list[float]:
        """Durations between buckets; few enough that a bucket holds at least a batch."""
        batches = sum(cut.duration for cut in self.cuts) / self.hardware.batch_duration_s
        if self.hardware.max_batch_utterances is not None:
            batches = max(batches, len(self.cuts) / self.hardware.max_batch_utterances)
        buckets = min(self.hardware.buckets, int(batches))
        if buckets < 2:
            return [self.hardware.batch_duration_s]
        bounds_s: list[float] = estimate_duration_buckets(self.cuts, buckets)
        return [float(bound) for bound in bounds_s]


def evaluation_batches(cuts: CutSet, hardware: HardwareConfig, rank: int = 0, world_size: int = 1) -> list[Item]:
    """Every utterance once, longest first, so that a batch that doesn't fit into memory shows at once."""
    ordered = sorted(cuts, key=lambda cut: (-cut.duration, cut.id))
    sampler = DynamicCutSampler(
        ordered,
        max_duration=hardware.batch_duration_s,
        max_cuts=hardware.max_batch_utterances,
        shuffle=False,
        rank=rank,
        world_size=world_size,
    )
    return [(0, index, batch) for index, batch in enumerate(sampler)]

"""Chooses the utterances of each batch, and the order of batches."""

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from lhotse import CutSet, MonoCut
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from numpy.typing import NDArray
from torch.utils.data import Sampler

from nibble.data.cuts import Cuts
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.progress import track


@dataclass(slots=True)
class _Number:
    """What Lhotse's samplers read of a cut; they hold thousands at a time."""

    number: int
    duration: float
    dataloading_info: object = None  # set by Lhotse


class _Drawn:
    """The numbers of cuts in an order, as Lhotse's samplers take them."""

    def __init__(self, durations_s: NDArray[np.float64], numbers: Sequence[int]) -> None:
        self.durations_s = durations_s
        self.numbers = numbers

    def __iter__(self) -> Iterator[_Number]:
        for number in self.numbers:
            yield _Number(number, float(self.durations_s[number]))


Item = tuple[int, int, CutSet]  # epoch, index of the batch in the epoch, its utterances


class TrainSampler(Sampler[Item]):
    """Yields batches epoch after epoch, without end, from a given batch on; skipping is cheap, as no audio is read.

    Each epoch is shuffled as a whole, then drawn from buckets of similar duration. What an epoch holds depends on
    the utterances, the seed and the epoch alone. N processes share each batch, which is then N times as
    large: together they train on what one process with that batch size would.
    """

    def __init__(
        self,
        cuts: Cuts,
        hardware: HardwareConfig,
        seed: int,
        start: tuple[int, int] = (0, 0),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.cuts = cuts
        self.hardware = hardware
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size
        # These two are for all processes together.
        self.batch_duration_s = world_size * hardware.batch_duration_s
        most = hardware.max_batch_utterances
        self.max_batch_utterances = None if most is None else world_size * most
        self.bounds_s = self._bucket_bounds_s()

    def __iter__(self) -> Iterator[Item]:
        epoch, first = self.start
        while True:
            for index, cuts in enumerate(self.epoch(epoch)):
                if index >= first:
                    yield epoch, index, cuts
            epoch, first = epoch + 1, 0

    def epoch(self, epoch: int) -> Iterator[CutSet]:
        """The batches of one epoch, or this process's share of each: at least one utterance.

        Raises:
            UserError: there are more processes than utterances.
        """
        made = (CutSet.from_cuts(self.cuts[one.number] for one in batch) for batch in self._batches(epoch))
        if self.world_size == 1:
            return made
        return (share(batch, self.rank, self.world_size) for batch in at_least(self.world_size, made))

    def count(self, epoch: int) -> int:
        """How many batches an epoch has; no cut is made for it unless several processes share the batches."""
        batches = self._batches(epoch) if self.world_size == 1 else self.epoch(epoch)
        return sum(1 for _ in track(batches, "counting batches", len(self.cuts), size=len))

    def largest(self) -> CutSet:
        """As many of the longest utterances as fit into a batch, or this process's share of them.

        No batch takes more memory: attention grows with the square of the longest utterance.
        """
        durations_s = self.cuts.durations_s
        fit = max(1, int(self.batch_duration_s / durations_s.max()))
        if self.max_batch_utterances is not None:
            fit = min(fit, self.max_batch_utterances)
        share = min(len(durations_s), -(-fit // self.world_size))
        longest = np.argpartition(durations_s, -share)[-share:]
        return CutSet.from_cuts(self.cuts[number] for number in longest.tolist())

    def _batches(self, epoch: int) -> Iterator[CutSet]:
        """The numbers of the cuts of each batch."""
        seed = self.seed * 1_000_003 + epoch
        numbers = array("q", range(len(self.cuts)))
        random.Random(seed).shuffle(numbers)
        sampler: DynamicBucketingSampler = DynamicBucketingSampler(
            _Drawn(self.cuts.durations_s, numbers),
            max_duration=self.batch_duration_s,
            max_cuts=self.max_batch_utterances,
            duration_bins=self.bounds_s,
            shuffle=True,
            seed=seed,
            # Without this, Lhotse 1.33 ends an epoch at the first empty bucket.
            sync_buckets=True,
            # One process: where the sampler divides batches itself, it may repeat utterances at the end of an epoch.
            rank=0,
            world_size=1,
        )
        return iter(sampler)

    def _bucket_bounds_s(self) -> list[float]:
        """Durations between buckets; few enough that a bucket holds at least a batch."""
        batches = sum(self.cuts.durations_s.data) / self.batch_duration_s  # without a list of ten million
        if self.max_batch_utterances is not None:
            batches = max(batches, len(self.cuts) / self.max_batch_utterances)
        buckets = min(self.hardware.buckets, int(batches))
        if buckets < 2:
            return [self.batch_duration_s]
        drawn = _Drawn(self.cuts.durations_s, range(len(self.cuts)))
        bounds_s: list[float] = estimate_duration_buckets(drawn, buckets)
        return [float(bound) for bound in bounds_s]


def at_least(utterances: int, batches: Iterator[CutSet]) -> Iterator[CutSet]:
    """Join batches with fewer than `utterances` utterances to their neighbours.

        Raises:
    UserError: all batches together have fewer.
    """
    ready: list[MonoCut] = []
    few: list[MonoCut] = []
    for batch in batches:
        few += batch
        if len(few) >= utterances:
            if ready:
                yield CutSet.from_cuts(ready)
            ready, few = few, []
    if not ready:
        raise UserError(f"{len(few)} training utterances are too few for {utterances} processes; give fewer devices")
    yield CutSet.from_cuts(ready + few)


def share(batch: CutSet, rank: int, world_size: int) -> CutSet:
    """The utterances of a batch that process `rank` trains on; each process has about the same duration."""
    ordered = sorted(batch, key=lambda cut: (-cut.duration, cut.id))
    return CutSet.from_cuts(ordered[rank::world_size])


def evaluation_batches(cuts: Cuts, hardware: HardwareConfig, rank: int = 0, world_size: int = 1) -> list[Item]:
    """Every utterance once, longest first, so that a batch that doesn't fit into memory shows at once.

    Every process gets the same number of batches; if they don't divide evenly, some batches are given twice.
    """
    ordered = sorted(cuts, key=lambda cut: (-cut.duration, cut.id))
    sampler = DynamicCutSampler(
        ordered,
        max_duration=hardware.batch_duration_s,
        max_cuts=hardware.max_batch_utterances,
        shuffle=False,
        rank=0,
        world_size=1,
    )
    batches = [(0, index, batch) for index, batch in enumerate(sampler)]
    rounds = -(-len(batches) // world_size)
    return [batches[(number * world_size + rank) % len(batches)] for number in range(rounds)]

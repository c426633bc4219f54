"""Batches over several devices, and evaluation order."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from lhotse import CutSet

from nibble.config import HardwareConfig
from nibble.data.manifest import read_part
from nibble.data.sampler import TrainSampler, evaluation_batches

HARDWARE = HardwareConfig(batch_duration_s=8.0, max_batch_utterances=3, buckets=2)


@pytest.fixture
def cuts(tiny_corpus: Path, tmp_path: Path) -> CutSet:
    return read_part(tiny_corpus / "LibriSpeech", "train-tiny", tmp_path)


def test_devices_share_an_epoch(cuts: CutSet) -> None:
    alone = [set(batch.ids) for batch in TrainSampler(cuts, HARDWARE, seed=1).epoch(0)]
    ranks = [list(TrainSampler(cuts, HARDWARE, 1, rank=rank, world_size=2).epoch(0)) for rank in (0, 1)]
    first, second = ([name for batch in batches for name in batch.ids] for batches in ranks)
    assert len(ranks[0]) == len(ranks[1]) < len(alone)
    assert sorted(first + second) == sorted(cuts.ids)


def test_starting_late_gives_the_rest(cuts: CutSet) -> None:
    whole = list(islice(TrainSampler(cuts, HARDWARE, seed=1), 20))
    for done in (1, 7, 13):
        rest = islice(TrainSampler(cuts, HARDWARE, 1, start=whole[done][:2]), 20 - done)
        assert [(e, i, list(b.ids)) for e, i, b in rest] == [(e, i, list(b.ids)) for e, i, b in whole[done:]]


@pytest.mark.parametrize("buckets", [1, 2, 50])
def test_any_number_of_buckets(cuts: CutSet, buckets: int) -> None:
    epoch = TrainSampler(cuts, replace(HARDWARE, buckets=buckets), seed=1).epoch(0)
    assert sorted(name for batch in epoch for name in batch.ids) == sorted(cuts.ids)


def test_one_utterance_is_enough(cuts: CutSet) -> None:
    (batch,) = TrainSampler(cuts.subset(first=1), HARDWARE, seed=1).epoch(0)
    assert len(batch) == 1


def test_evaluation_is_longest_first_and_within_the_limits(cuts: CutSet) -> None:
    batches = [batch for _, _, batch in evaluation_batches(cuts, HARDWARE)]
    durations_s = [cut.duration for batch in batches for cut in batch]
    assert durations_s == sorted(durations_s, reverse=True)
    assert sorted(name for batch in batches for name in batch.ids) == sorted(cuts.ids)
    assert all(len(batch) <= 3 and batch[0].duration * len(batch) <= 8.0 for batch in batches)

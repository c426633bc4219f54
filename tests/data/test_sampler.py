"""Batches over several devices, and evaluation order."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from nibble.data.cuts import Cuts
from nibble.data.sampler import TrainSampler, evaluation_batches
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import read_part
from nibble.errors import UserError
from nibble.hardware import HardwareConfig

HARDWARE = HardwareConfig(batch_duration_s=8.0, max_batch_utterances=3, buckets=2)


@pytest.fixture
def cuts(tiny_corpus: Path, tmp_path: Path) -> Cuts:
    return read_part(LibriSpeech(tiny_corpus / "LibriSpeech" / "train-tiny"), tmp_path)


@pytest.mark.parametrize("utterances", [4, 5, 9, 12, 31])
def test_in_each_of_three_epochs_four_processes_hear_every_utterance_once(cuts: Cuts, utterances: int) -> None:
    copies = [cut.with_id(f"{cut.id}-{copy}") for copy in range(3) for cut in cuts]
    many = Cuts.of(copies[:utterances])
    samplers = [TrainSampler(many, HARDWARE, 1, rank=rank, world_size=4) for rank in range(4)]
    orders = []
    for epoch in range(3):
        shares = [[list(batch.ids) for batch in sampler.epoch(epoch)] for sampler in samplers]
        assert len({len(batches) for batches in shares}) == 1, "a process would wait for the others for ever"
        assert all(batch for batches in shares for batch in batches)
        orders.append([name for step in zip(*shares, strict=True) for batch in step for name in batch])
        assert sorted(orders[-1]) == sorted(many.ids)
    assert utterances < 31 or orders[0] != orders[1] != orders[2]


def test_processes_share_the_batches_of_one_with_larger_ones(cuts: Cuts) -> None:
    larger = replace(HARDWARE, batch_duration_s=16.0, max_batch_utterances=6)
    alone = [sorted(batch.ids) for batch in TrainSampler(cuts, larger, seed=1).epoch(0)]
    shares = zip(*(TrainSampler(cuts, HARDWARE, 1, rank=rank, world_size=2).epoch(0) for rank in (0, 1)), strict=True)
    assert [sorted(name for batch in step for name in batch.ids) for step in shares] == alone


def test_more_processes_than_utterances(cuts: Cuts) -> None:
    with pytest.raises(UserError, match="3 training utterances are too few for 4 processes"):
        next(TrainSampler(cuts[:3], HARDWARE, 1, rank=0, world_size=4).epoch(0))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_processes_evaluate_every_utterance_in_as_many_batches(cuts: Cuts, ranks: int) -> None:
    shares = [evaluation_batches(cuts, HARDWARE, rank, ranks) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert {name for share in shares for _, _, batch in share for name in batch.ids} == set(cuts.ids)


def test_starting_late_gives_the_rest(cuts: Cuts) -> None:
    whole = list(islice(TrainSampler(cuts, HARDWARE, seed=1), 20))
    for done in (1, 7, 13):
        rest = islice(TrainSampler(cuts, HARDWARE, 1, start=whole[done][:2]), 20 - done)
        assert [(e, i, list(b.ids)) for e, i, b in rest] == [(e, i, list(b.ids)) for e, i, b in whole[done:]]


@pytest.mark.parametrize("buckets", [1, 2, 50])
def test_any_number_of_buckets(cuts: Cuts, buckets: int) -> None:
    epoch = TrainSampler(cuts, replace(HARDWARE, buckets=buckets), seed=1).epoch(0)
    assert sorted(name for batch in epoch for name in batch.ids) == sorted(cuts.ids)


def test_one_utterance_is_enough(cuts: Cuts) -> None:
    (batch,) = TrainSampler(cuts[:1], HARDWARE, seed=1).epoch(0)
    assert len(batch) == 1


def test_evaluation_is_longest_first_and_within_the_limits(cuts: Cuts) -> None:
    batches = [batch for _, _, batch in evaluation_batches(cuts, HARDWARE)]
    durations_s = [cut.duration for batch in batches for cut in batch]
    assert durations_s == sorted(durations_s, reverse=True)
    assert sorted(name for batch in batches for name in batch.ids) == sorted(cuts.ids)
    assert all(len(batch) <= 3 and batch[0].duration * len(batch) <= 8.0 for batch in batches)

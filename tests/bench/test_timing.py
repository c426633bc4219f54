"""What is computed from the clocks, on clocks that the contenders turn themselves."""

from collections.abc import Callable

import pytest
import torch

from nibble.bench.records import with_sizes
from nibble.bench.timing import Moment, Times, in_turns, measurements, paired_ratio, torch_threads


class Machine:
    """Both clocks of a machine on which contenders take as long as they are told."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self.called: list[str] = []

    def clock(self) -> Moment:
        return Moment(self.cpu_s, self.wall_s)

    def contender(self, name: str, cpu_s: float, wall_s: float | None = None) -> Callable[[], None]:
        def call() -> None:
            self.called.append(name)
            self.cpu_s += cpu_s
            self.wall_s += cpu_s if wall_s is None else wall_s

        return call


def test_a_turn_is_measured_on_both_clocks() -> None:
    machine = Machine()
    times = in_turns({"a": machine.contender("a", 0.5, 0.75)}, rounds=3, clock=machine.clock)
    assert times["a"].cpu_ms == pytest.approx([500, 500, 500])
    assert times["a"].wall_ms == pytest.approx([750, 750, 750])


def test_every_round_has_every_contender_and_begins_with_another() -> None:
    machine = Machine()
    in_turns({name: machine.contender(name, 1) for name in "abc"}, rounds=4, clock=machine.clock)
    timed = "".join(machine.called[9:])  # after three calls each to warm up
    assert timed == "abc" "bca" "cab" "abc"  # fmt: skip


def test_a_turn_of_a_short_contender_is_many_calls() -> None:
    machine = Machine()
    times = in_turns({"a": machine.contender("a", 0.0015)}, rounds=2, clock=machine.clock)
    assert len(machine.called) == 3 + 2 * 14  # a turn is at least 20 ms
    assert times["a"].cpu_ms == pytest.approx([1.5, 1.5])


def test_a_long_call_warms_up_alone() -> None:
    machine = Machine()
    in_turns({"a": machine.contender("a", 1.5)}, rounds=2, clock=machine.clock)
    assert len(machine.called) == 1 + 2


def test_the_first_calls_do_not_count() -> None:
    machine = Machine()
    slow_at_first = iter([5.0, 1.0, 1.0, 1.0])
    times = in_turns({"a": lambda: machine.contender("a", next(slow_at_first))()}, rounds=1, clock=machine.clock)
    assert times["a"].cpu_ms == pytest.approx([1000])


def test_a_ratio_is_of_pairs_of_one_round() -> None:
    assert paired_ratio([1, 20, 3], [2, 40, 3]) == 0.5  # a slow second round is slow for both; medians give 1
    with pytest.raises(ValueError, match="longer"):
        paired_ratio([1.0], [1.0, 2.0])


def test_a_record_for_each_pair() -> None:
    times = {"ours": Times([1, 2, 3], [2, 9, 7]), "theirs": Times([2, 4, 6], [1, 1, 1])}
    pairs = [("theirs", "theirs"), ("ours", "theirs")]
    theirs, ours = with_sizes(measurements("encoder", "conformer_l, 10 s", times, pairs, threads=1), {"ours": 60})
    assert (ours.bench, ours.case, ours.contender, ours.baseline) == ("encoder", "conformer_l, 10 s", "ours", "theirs")
    assert (ours.ratio, ours.median_ms, ours.wall_ms, ours.rounds, ours.bytes) == (0.5, 2, 7, 3, 60)
    assert (theirs.ratio, theirs.bytes) == (1, None)
    assert ours.clock == "cpu"
    assert len(ours.commit.removesuffix("+dirty")) == 40
    assert ours.hardware.endswith("cores")


def test_several_threads_are_compared_by_wall_time() -> None:
    times = {"ours": Times([1, 2, 3], [2, 9, 7]), "theirs": Times([2, 4, 6], [1, 1, 1])}
    (ours,) = measurements("encoder", "m", times, [("ours", "theirs")], threads=2)
    assert (ours.clock, ours.threads, ours.ratio, ours.median_ms) == ("wall", 2, 7, 7)


def test_threads_of_torch_are_restored() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before

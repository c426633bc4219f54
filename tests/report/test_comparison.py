"""Which records belong to which runs, and which of them make one table."""

from dataclasses import replace
from pathlib import Path

import pytest

from nibble.config import plain
from nibble.data.options import NoiseConfig, NoiseKind
from nibble.errors import UserError
from nibble.model.options import SizeConfig
from nibble.provenance import config_hash
from nibble.report.comparison import compare
from nibble.report.matching import Measurement, match
from nibble.report.page.charts import ONE_RUN
from nibble.report.page.contents import _rows
from nibble.report.runs import Run, find_runs
from nibble.runs.records import Record, read


@pytest.fixture
def runs(finished_runs: Path) -> dict[str, Run]:
    return {run.name: run for run in find_runs([finished_runs / "runs"])[0]}


@pytest.fixture
def records(finished_runs: Path) -> list[Record]:
    return read(finished_runs / "runs" / "records.jsonl")


def changed(run: Run, name: str, **options) -> Run:
    """The same run in another folder, with other options."""
    config = replace(run.config, **options)
    return replace(run, folder=run.folder.parent / name, name=name, config=config, settings=plain(config))


def rows(measured: list[Measurement], part: str | None = None) -> list[tuple[str, str, str]]:
    return [(row.last.quant, row.method, row.options) for row in compare(measured, part).rows]


def test_records_find_their_runs(runs: dict[str, Run], records: list[Record]) -> None:
    found = match(list(runs.values()), records)
    assert [(one.run.name, one.record.quant, one.record.method) for one in found] == [
        ("float", "float", "float"),
        ("int4", "int4", "qat"),
        ("float", "int4", "ptq"),
    ]
    assert [one.record.quant for one in match([runs["int4"]], records)] == ["int4", "int4"]
    others = [replace(record, config_hash="0" * 12, experiment="other") for record in records]
    assert match(list(runs.values()), others) == []


def test_records_of_a_beam_search_are_of_the_run_too(runs: dict[str, Run], records: list[Record]) -> None:
    how = {"parts": ["dev-tiny"], "decoding": "beam", "max_utterances": None, "beam_width": 4}
    beam = replace(
        records[1],
        backend="native beam4",
        config_hash=config_hash({**runs["int4"].settings, "evaluation": how}),
    )
    assert match([runs["int4"]], [beam])[0].run is runs["int4"]


def test_untrained_weights_are_of_the_run_that_the_command_names(runs: dict[str, Run], records: list[Record]) -> None:
    untrained = replace(records[2], command="python evaluate.py checkpoint=runs/tiny/second quant=int4")
    second = changed(runs["float"], "second", loss=replace(runs["float"].config.loss, ctc_weight=0.5))
    found = match([runs["float"], second], [untrained])
    assert [one.run.name for one in found] == ["second"]
    anonymous = replace(untrained, command="python evaluate.py experiment=tiny quant=int4")
    assert match([runs["float"], second], [anonymous]) == [], "it may be of either"
    assert [one.run.name for one in match(list(runs.values()), [anonymous])] == ["float"]


def test_of_equal_runs_the_last_one_counts(runs: dict[str, Run], records: list[Record]) -> None:
    again = replace(changed(runs["float"], "again"), finished_s=runs["float"].finished_s + 1)
    found = match([again, runs["float"], runs["int4"]], [*records[:2], replace(records[2], command="python x.py")])
    assert [one.run.name for one in found] == ["again", "int4", "again"]


def test_equal_runs_on_other_speech_are_told_apart(runs: dict[str, Run], records: list[Record]) -> None:
    folds = []
    for number in (1, 2):
        data = replace(runs["int4"].config.data, corpus_dir=f"data/digits-fold{number}")
        folds.append(changed(runs["int4"], f"int4_fold{number}", data=data))
    ours = [replace(records[1], corpus=f"digits-fold{number}") for number in (1, 2)]
    assert [one.run.name for one in match(folds, ours)] == ["int4_fold1", "int4_fold2"]
    elsewhere = replace(records[1], corpus="other", command="python evaluate.py checkpoint=[runs/int4_fold1,runs/x]")
    assert [one.run.name for one in match(folds, [elsewhere])] == ["int4_fold1"]


def test_one_table_with_differences_to_float(runs: dict[str, Run], records: list[Record]) -> None:
    comparison = compare(match(list(runs.values()), records))
    assert str(comparison.speech).startswith("dev-tiny of speech, ")
    assert {(row.last.quant, row.method) for row in comparison.rows} == {
        ("float", ""),
        ("int4", "trained"),
        ("int4", "not trained"),
    }
    assert comparison.rows[0].difference is None
    assert all(row.difference is not None for row in comparison.rows[1:])
    assert [run.name for run in comparison.runs] == ["float", "int4"]
    own = comparison.own(runs["int4"])
    assert own is not None
    assert own.method == "qat"
    assert [comparison.weights(row) for row in comparison.rows] == ["float", "int4", "int4"]


def test_mixed_speech_is_refused_and_named(runs: dict[str, Run], records: list[Record]) -> None:
    test = replace(records[1], part="test-tiny", reference_words=7)
    measured = [Measurement(runs["float"], records[0]), Measurement(runs["int4"], test)]
    with pytest.raises(
        UserError, match=r"dev-tiny of speech.*\(1 run\); test-tiny of speech, 7 words \(1 run\)"
    ) as error:
        compare(measured)
    assert "choose with part=dev-tiny" in str(error.value)
    assert rows(measured, "test-tiny") == [("int4", "trained", "")]
    with pytest.raises(UserError, match="nothing was measured on part dev-clean; there is: dev-tiny"):
        compare(measured, "dev-clean")
    other = Measurement(runs["int4"], replace(records[1], corpus="librispeech"))
    with pytest.raises(UserError, match=r"dev-tiny of librispeech.*give runs of one kind only"):
        compare([measured[0], other])


def test_noise_is_another_speech(runs: dict[str, Run], records: list[Record]) -> None:
    noise = NoiseConfig(kind=NoiseKind.babble, dir="x", dev_snr_db=5)
    noisy = changed(runs["int4"], "noisy", data=replace(runs["int4"].config.data, noise=noise))
    with pytest.raises(UserError, match="babble at 5 dB"):
        compare([Measurement(runs["float"], records[0]), Measurement(noisy, records[1])])


def test_seeds_make_one_row_and_other_options_two(runs: dict[str, Run], records: list[Record]) -> None:
    float_, int4 = Measurement(runs["float"], records[0]), Measurement(runs["int4"], records[1])
    second = Measurement(changed(runs["int4"], "second", seed=2), replace(records[1], seed=2))
    (_, row) = compare([float_, int4, second]).rows
    assert row.system.seeds == [1, 2]
    assert [run.name for run in row.runs] == ["int4", "second"]
    optimizer = replace(runs["int4"].config.optimizer, learning_rate=0.5)
    faster = Measurement(changed(runs["int4"], "faster", optimizer=optimizer), records[1])
    found = rows([float_, int4, faster])
    assert [options for _, _, options in found[1:]] == [
        f"optimizer.learning_rate={runs['int4'].config.optimizer.learning_rate}",
        "optimizer.learning_rate=0.5",
    ]
    told_apart = compare([float_, int4, faster])
    assert len({told_apart.how(row) for row in told_apart.rows}) == 3


def test_paths_do_not_tell_runs_apart(runs: dict[str, Run], records: list[Record]) -> None:
    first = Measurement(changed(runs["int4"], "a", init_from="runs/x/seed1"), records[1])
    second = Measurement(changed(runs["int4"], "b", init_from="runs/x/seed2", seed=2), replace(records[1], seed=2))
    (row,) = compare([first, second]).rows
    assert row.system.seeds == [1, 2]


def test_engines_are_told_apart(runs: dict[str, Run], records: list[Record]) -> None:
    sherpa = replace(records[1], backend="sherpa 1.0 w4a8 greedy")
    comparison = compare([Measurement(runs["int4"], record) for record in (records[1], sherpa)])
    assert sorted(comparison.how(row) for row in comparison.rows) == [
        "trained, native greedy",
        "trained, sherpa 1.0 w4a8 greedy",
    ]


def test_the_sizes_of_a_run_are_rows_of_their_own_beside_runs_of_one_size(runs: dict[str, Run], records) -> None:
    """A record of a smaller network has the options of a run of that size alone."""
    whole = runs["float"]
    model = replace(whole.config.model, sizes=[SizeConfig("small", feed_forward=0.5)])
    small = replace(model.at_size("small"), sizes=[])
    nested = replace(whole, sizes=(small,))
    how = {"parts": ["dev-tiny"], "decoding": "greedy", "max_utterances": None}
    alone = plain(replace(whole.config, model=small))
    of_small = replace(
        records[0], model=small.name, bundle_bytes=1_000, config_hash=config_hash({**alone, "evaluation": how})
    )
    assert match([whole], [of_small]) == []
    found = compare(match([nested, runs["int4"]], [*records, of_small]))
    page = {
        (row.last.model, row.last.quant, shown["kind"]): shown
        for row, shown in zip(found.rows, _rows(found), strict=True)
    }
    assert page.keys() == {
        ("tiny", "float", ONE_RUN),
        (small.name, "float", ONE_RUN),
        ("tiny", "int4", "trained"),
        ("tiny", "int4", "not trained"),
    }
    assert page[small.name, "float", ONE_RUN]["weights"] == f"{small.name} float"
    assert page[small.name, "float", ONE_RUN]["front_bytes"]
    assert not page["tiny", "float", ONE_RUN]["front_bytes"], "as many errors in more bytes"
    assert any(row["front_bytes"] for row in page.values() if not row["one_run"]), (
        "other runs have a front of their own"
    )

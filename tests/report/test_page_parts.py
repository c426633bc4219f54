"""What the page is made of: curves, phases, histograms, fronts, worst utterances, sound and pictures."""

import base64
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from nibble.errors import UserError
from nibble.evaluation.listening import listen
from nibble.quant.spec import Phase, Precision, ScheduleConfig
from nibble.report.comparison import Speech, compare
from nibble.report.matching import match
from nibble.report.page.contents import collect
from nibble.report.page.curves import curve, phases, read_metrics, sqnr
from nibble.report.page.front import apart, pareto_front
from nibble.report.page.layers import histograms
from nibble.report.page.media import sound, spectrogram
from nibble.report.page.utterances import worst
from nibble.report.page.writing import render
from nibble.report.runs import find_runs
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.records import read

SPEECH = Speech("speech", "dev-tiny", 20, "")


def data_of(uri: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


def test_curves_are_averaged_and_finite(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    rows = [f"{step},0,{1000 - step},," for step in range(1000)]
    (tmp_path / "csv" / "metrics.csv").write_text(
        "step,epoch,train_loss,quant/a/weight/sqnr_db,quant/b/weight/sqnr_db\n"
        + "\n".join(rows)
        + "\n1000,1,nan,10,30\n1001,1,,inf,20\n"
    )
    metrics = read_metrics(tmp_path)
    points = curve(metrics, "train_loss")
    assert len(points) == 250
    assert points[0] == [2.0, 998.5]
    assert sqnr(metrics) == [[1000, 12.0, 20.0, 28.0], [1001, 20.0, 20.0, 20.0]]
    assert curve(metrics, "val_wer") == []
    assert read_metrics(tmp_path / "csv") == {}
    (tmp_path / "csv" / "metrics.csv").write_text("step,train_loss\nx,y\n")
    with pytest.raises(UserError, match=r"metrics.csv is damaged .*remove it"):
        read_metrics(tmp_path)


def test_phases_are_in_steps_and_equal_neighbours_are_one(finished_runs: Path) -> None:
    float_, int4 = (run.config for run in find_runs([finished_runs / "runs"])[0])
    assert [tuple(phase) for phase in phases(int4, {})] == [
        (0, 4.0, "float"),
        (4.0, 0.7 * 8, "int8"),
        (0.7 * 8, 8, "int4"),
    ]
    assert [tuple(phase) for phase in phases(float_, {})] == [(0, 8, "float")]
    again = ScheduleConfig([Phase(0.0, Precision.rules), Phase(0.5, Precision.rules, ramp=0.1)])
    assert [tuple(phase) for phase in phases(replace(int4, schedule=again), {})] == [(0, 8, "int4")]
    several = [Precision.int8, Precision.int4]
    together = ScheduleConfig([Phase(0.0, Precision.int4, together=several)])
    assert phases(replace(int4, schedule=together), {})[0].name == "int8, int4"
    unknown = replace(int4, trainer=replace(int4.trainer, max_steps=None))
    assert phases(unknown, {}) == []
    assert phases(unknown, {"train_loss": [(9, 1.0)]})[-1].end == 10


def test_histograms_add_up(finished_runs: Path) -> None:
    found = histograms(load_checkpoint(finished_runs / "runs" / "tiny" / "int4").model)
    layer = found["joiner.encoder"]
    assert layer["bits"] == 4
    assert -7 <= layer["lowest"] <= 0
    assert len(layer["codes"]) <= 15
    for shares in (layer["weights"], layer["codes"]):
        assert sum(shares) == pytest.approx(100, abs=0.5)
    float_ = histograms(load_checkpoint(finished_runs / "runs" / "tiny" / "float").model)
    assert float_.keys() == found.keys()
    assert "codes" not in float_["joiner.encoder"]


def test_many_codes_share_bars() -> None:
    from nibble.quant.convert import prepare, set_precision
    from nibble.quant.spec import QuantConfig, Rule, WeightSpec

    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    prepare(model, QuantConfig("int8", [Rule(weight=WeightSpec(bits=8))]))
    set_precision(model, Precision.rules)
    layer = histograms(model)["0"]
    assert layer["together"] == 4
    assert len(layer["codes"]) <= 64
    assert sum(layer["codes"]) == pytest.approx(100, abs=1)


def test_the_front_is_what_nothing_beats() -> None:
    points = [(1.0, 50.0), (2.0, 10.0), (3.0, 10.0), (4.0, 5.0), (2.0, 20.0), (5.0, 7.0)]
    assert pareto_front(points) == [0, 1, 3]
    assert apart(points, [0, 1, 3]) == [3, 0, 1]
    near = [(1.0, 50.0), (100.0, 5.0), (100.1, 4.99)]
    assert apart(near, pareto_front(near)) == [2, 0]
    assert apart([(1.0, 0.0)], [0]) == [0]
    # A label is wider than high: side by side they need more room than one above the other.
    beside, above = (
        [(1.0, 2.0), (1.4, 1.9), (10.0, 1.0), (1.0, 9.0)],
        [(1.0, 4.0), (1.05, 2.6), (10.0, 1.0), (1.0, 9.0)],
    )
    assert len(apart(beside, [0, 1, 2])) == 2
    assert len(apart(above, [0, 1, 2])) == 3


def test_the_worst_of_each_in_turn(finished_runs: Path) -> None:
    record = read(finished_runs / "runs" / "records.jsonl")[0]
    first = replace(record, utterance_errors=[("a", 3, 4), ("b", 1, 4), ("c", 0, 4)])
    second = replace(record, utterance_errors=[("a", 1, 4), ("b", 0, 4), ("d", 2, 4)])
    assert worst([first, second], 9) == ["a", "d", "b"]
    assert worst([first, second], 2) == ["a", "d"]
    assert worst([first, second], 0) == []


def test_sound_and_spectrogram() -> None:
    samples = torch.sin(torch.arange(16_000) * 0.2)
    decoded, rate_hz = soundfile.read(data_of(sound(2 * samples)))
    assert rate_hz == 16_000
    assert len(decoded) / rate_hz == pytest.approx(1, abs=0.15)
    assert np.abs(decoded).max() > 0.5
    assert len(sound(samples)) < 12_000
    features = torch.full((3000, 80), -10.0)
    features[:, 60:] = 5
    picture = np.asarray(Image.open(data_of(spectrogram(features))).convert("L"))
    assert picture.shape == (80, 1000)
    assert picture[:15].mean() > picture[25:].mean() + 100, "high frequencies are above"


def test_utterances_are_those_that_were_evaluated(
    finished_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_runs)
    loaded = load_checkpoint(Path("runs/tiny/int4"))
    ids = [id_ for id_, _, _ in read(Path("runs/records.jsonl"))[0].utterance_errors]
    assert [batch.ids for batch in listen(loaded, SPEECH.part, ids[:1])] == [ids[:1]]
    with pytest.raises(UserError, match="has no utterance nobody in dev-tiny"):
        listen(loaded, SPEECH.part, ["nobody"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the corpus speech is not on this machine"):
        listen(loaded, SPEECH.part, ids[:1])


def test_without_the_corpus_the_page_says_why_it_is_silent(
    finished_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_runs)
    runs, _ = find_runs([Path("runs/tiny/int4")])
    elsewhere = tmp_path / "int4"  # as on another machine: without the folder that its speech was read from
    shutil.copytree(runs[0].folder, elsewhere, ignore=shutil.ignore_patterns("speech.json"))
    comparison = compare(match([replace(run, folder=elsewhere) for run in runs], read(Path("runs/records.jsonl"))))
    monkeypatch.chdir(tmp_path)
    contents = collect(comparison, 3)
    assert contents.utterances == {}
    assert "the corpus speech is not on this machine" in contents.silence
    assert contents.runs[0]["heard"] == {}
    assert collect(comparison, 0).silence == "Left out: utterances=0."


def test_names_from_outside_are_no_html(finished_runs: Path) -> None:
    strange = "<b onclick=alert(1)>[red] & {{7*7}}"
    measured = match(find_runs([finished_runs / "runs"])[0], read(finished_runs / "runs" / "records.jsonl"))
    changes = {"experiment": strange, "corpus": strange, "model": strange, "hardware": strange}
    found = compare([one._replace(record=replace(one.record, **changes)) for one in measured])
    text = render(found, collect(found, 0), [strange])
    assert "<b onclick" not in text
    assert "&lt;b onclick=alert(1)&gt;[red] &amp; {{7*7}}" in text

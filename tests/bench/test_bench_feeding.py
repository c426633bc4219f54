"""Loaders and trainings are measured; every contender delivers the same speech."""

from pathlib import Path

import pytest
import torch

from nibble.bench import __main__ as command
from nibble.bench import feeding
from nibble.bench.feeding import _speech, epochs, measure_loaders, measure_trainings, waiting
from nibble.errors import UserError

WORDS = ["model=conformer_xs", "hardware.batch_duration_s=8"]


@pytest.fixture
def words(tiny_corpus: Path) -> list[str]:
    return [*WORDS, f"data.corpus_dir={tiny_corpus}"]


def test_every_contender_delivers_the_same_speech(words: list[str], tmp_path: Path) -> None:
    sources = (_speech([*words, f"features={choice}"], tmp_path / "data") for choice in ("fbank", "fbank_stored"))
    delivered = []
    shar = tmp_path / "shar"
    shar.mkdir()
    for contender in epochs(*sources, shar).values():
        batches = contender()
        assert len(batches) > 1
        delivered.append(
            {
                name: (text, features[:frames], labels[:length])
                for batch in batches
                for name, text, features, frames, labels, length in zip(
                    batch.ids, batch.texts, batch.features, batch.feature_lengths, batch.labels, batch.label_lengths,
                    strict=True,
                )
            }
        )  # fmt: skip
    first, *others = delivered
    assert len(first) == 12
    for other in others:
        assert other.keys() == first.keys()
        for name, (text, features, labels) in first.items():
            assert other[name][0] == text
            torch.testing.assert_close(other[name][1], features)
            assert torch.equal(other[name][2], labels)


def test_a_measurement_of_loaders(words: list[str], tmp_path: Path) -> None:
    found = measure_loaders(words, rounds=2, root=tmp_path)
    assert [one.contender for one in found] == ["on the fly", "stored features", "Lhotse Shar"]
    for one in found:
        assert one.bench == "feeding"
        assert one.case.endswith("one process")
        assert one.ratio > 1  # faster than it is spoken
        assert one.median_ms is not None
        assert one.median_ms > 0


def test_a_measurement_of_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def train(words: list[str], run: Path, steps: int) -> None:
        started.append((words, steps))
        write_metrics(run / "csv" / "metrics.csv")

    monkeypatch.setattr(feeding, "_train", train)
    found = measure_trainings(["model=conformer_xs"], steps=30)
    assert len(started) == 2
    assert started[0] == (["model=conformer_xs", "features=fbank", "hardware.workers=0"], 30)
    assert [(one.baseline, one.ratio) for one in found[:2]] == [("its audio", 120.0), ("the time it takes", 0.02)]


def test_what_a_training_waits_for_begins_after_its_first_window(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv")
    assert waiting(tmp_path / "metrics.csv") == (0.02, 120.0, 3)


def test_no_other_bench_takes_a_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["size", "corpus=here"]) == 1
    assert "size takes no corpus=; only feeding and transcribe do" in capsys.readouterr().err


def test_a_training_that_fails_is_one_line() -> None:
    with pytest.raises(UserError, match=r"train\.py model=conformer_xz failed: error: no model=conformer_xz"):
        feeding._train(["model=conformer_xz"], Path("unused"), 10)


def write_metrics(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "epoch,speed/audio_hours_per_hour,speed/waiting_share,step,train_loss\n"
        "0,10.0,0.9,10,\n0,,,11,3.0\n0,100.0,0.01,20,\n0,120.0,0.02,30,\n0,130.0,0.03,40,\n"
    )

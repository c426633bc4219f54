from pathlib import Path

import pytest

from nibble.bench import __main__ as command
from nibble.bench import size
from nibble.bench.records import Measurement, read

COMMITTED = Path(__file__).parents[2] / "results" / "bench.jsonl"


def test_the_command_measures_prints_and_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.BENCHES, "size", lambda: size.measure(("conformer_xs",)))
    assert command.main(["size", f"records={tmp_path / 'bench.jsonl'}"]) == 0
    dense, pruned = read(tmp_path / "bench.jsonl")
    assert (dense.bench, dense.case, dense.contender, dense.baseline) == ("size", "conformer_xs", "int4", "float32")
    assert pruned.contender == "int4_24"
    assert dense.median_ms is None
    assert dense.bytes is not None
    assert pruned.bytes is not None
    assert dense.bytes > pruned.bytes
    parameters = dense.ratio * dense.bytes / 4
    assert parameters == pytest.approx(pruned.ratio * pruned.bytes / 4)
    assert dense.bytes > parameters / 2  # four bits each, and all that is not integers
    assert f"{dense.bytes:,}" in capsys.readouterr().out


def test_a_model_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["size", "model=conformer_xxs", f"records={tmp_path / 'bench.jsonl'}"]) == 0
    assert {one.case for one in read(tmp_path / "bench.jsonl")} == {"conformer_xxs"}
    capsys.readouterr()
    for words in (["gemm", "model=conformer_xxs"], ["encoder", "model=conformer_xxs", "device=cuda"]):
        assert command.main(words) == 1
        assert "model=conformer_xxs: encoder and size take it, on the CPU" in capsys.readouterr().err


def test_the_same_bytes_again() -> None:
    found = [size.measure(("conformer_xs",), ("int4",))[0].bytes for _ in range(2)]
    assert found[0] == found[1]


def test_a_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = Measurement("size", "m", "int4", "float32", 7.0, None, 1, "a CPU", "0" * 40, "python", 1)
    monkeypatch.setitem(command.BENCHES, "size", lambda: [measured])
    (tmp_path / "file").touch()
    assert command.main(["size", f"records={tmp_path / 'file' / 'bench.jsonl'}"]) == 1
    assert "error: the result cannot be added" in capsys.readouterr().err


@pytest.mark.parametrize(("contender", "least"), [("int4", 7.7), ("int4_24", 10.3)])
def test_what_is_claimed_of_conformer_l(contender: str, least: float) -> None:
    found = [one for one in read(COMMITTED) if (one.bench, one.case) == ("size", "conformer_l")]
    assert [one for one in found if one.contender == contender][-1].ratio >= least

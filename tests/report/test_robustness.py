"""The table of changed speech in RESULTS.md, and what keeps its records out of other tables."""

from dataclasses import replace
from pathlib import Path

from test_results import FLOAT, INT4

from nibble.data.options import Condition
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.hardware import HardwareConfig
from nibble.report import results
from nibble.report.matching import match
from nibble.report.robustness import render
from nibble.report.runs import find_runs
from nibble.report.tables import unchanged

WORSE = {"utterance_errors": [("a", 2, 2), ("b", 1, 2)], "wer": 0.75}
SPEECH = [
    FLOAT,
    INT4,
    replace(FLOAT, condition=Condition.telephone, **WORSE),
    replace(INT4, condition=Condition.telephone, **WORSE),
    replace(INT4, condition=Condition.silence_alone, utterance_errors=[("a", 0, 2), ("b", 0, 2)], wer=0.0),
]


def rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines}


def test_float_stands_beside_int4_under_each_condition() -> None:
    found = rows(render(SPEECH))
    assert found["speech"] == [
        *("float: WER %, 95 %", "more", "int4: WER %, 95 %", "more"),
        "int4 minus float, points, 95 %",
    ]
    assert found["unchanged"][1] == found["unchanged"][3] == ""
    assert found[Condition.telephone.label][0].startswith("75.00 (")
    assert found[Condition.telephone.label][1] == "+50.00"
    assert found[Condition.telephone.label][3] == "+25.00"
    assert found[Condition.telephone.label][4] == "+0.00 (+0.00 … +0.00), same"
    assert found["silence alone"] == ["", "", "0.00 (0.00–0.00)", "", ""]
    assert "quieter" not in render(SPEECH), "what was not measured has no row"


def test_models_that_were_not_changed_have_no_column() -> None:
    assert "int8" not in render([*SPEECH, replace(INT4, quant="int8")])
    assert render([FLOAT, INT4]) == ""


def test_other_tables_leave_changed_speech_out() -> None:
    assert unchanged(SPEECH) == [FLOAT, INT4]
    text = results.render(SPEECH)
    assert text.startswith(results.render([FLOAT, INT4]).rstrip())
    assert "## Robustness: digits, dev-digits of digits" in text


def test_a_record_of_changed_speech_is_of_its_run(finished_runs: Path, monkeypatch) -> None:
    monkeypatch.chdir(finished_runs)
    hardware = HardwareConfig(threads=1, workers=0)
    options = EvaluateConfig(checkpoint="runs/tiny/int4", condition="telephone", records=None, hardware=hardware)
    (result,) = evaluate_checkpoints(options)
    runs, _ = find_runs([Path("runs/tiny")])
    (found,) = match(runs, [result.record])
    assert found.run.name == "int4"

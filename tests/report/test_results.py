import re
from dataclasses import replace
from pathlib import Path

import pytest
from example_record import RECORD

from nibble.commands.report import main
from nibble.memory import Footprint
from nibble.report.documents import BEGIN, END
from nibble.report.gains import gains
from nibble.report.precisions import COLUMNS, sections, summary
from nibble.report.results import render
from nibble.report.tables import baseline, code, escaped, markdown, systems
from nibble.runs.method import Method
from nibble.runs.records import append

FLOAT = replace(
    RECORD,
    quant="float",
    method=Method.float,
    backend="float greedy",
    bundle_bytes=4500,
    ratio=4000 / 4500,
    commit="0" * 40 + "+dirty",
)
INT4 = replace(
    FLOAT,
    quant="int4",
    method=Method.qat,
    config_hash="def",
    backend="native greedy",
    bundle_bytes=500,
    ratio=8.0,
    wer=0.5,
    utterance_errors=[("a", 1, 2), ("b", 1, 2)],
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the repository, whose documents a report would rewrite."""
    monkeypatch.chdir(tmp_path)


def test_seeds_are_taken_together_and_the_last_record_counts() -> None:
    stale = replace(INT4, utterance_errors=[("a", 2, 2), ("b", 2, 2)], wer=1.0)
    second = replace(INT4, seed=2, utterance_errors=[("a", 0, 2), ("b", 0, 2)], wer=0.0, rtf=0.03)
    (found,) = systems([stale, second, INT4])
    assert found.seeds == [1, 2]
    assert found.wer[0] == 0.25
    assert found.rtf == pytest.approx(0.02)
    assert found.bits == 4.0


def test_memory_has_a_column_where_it_was_measured() -> None:
    assert "| MB in use |" not in render([FLOAT, INT4])
    measured = [
        replace(INT4, seed=seed, memory=Footprint(0.5, 9_000_000, ran_bytes, 30_000_000))
        for seed, ran_bytes in ((1, 20_000_000), (2, 24_400_000))
    ]
    found = render([FLOAT, *measured, replace(INT4, seed=3)])
    assert "| ratio | MB in use | RTF |" in found
    assert "| 0.89 |  | 0.0100 |" in found
    assert "| 8.00 | 22 | 0.0100 |" in found


def test_the_difference_is_to_the_float_run_of_the_same_model_search_and_seeds() -> None:
    other = replace(FLOAT, model="conformer_s")
    beam = replace(FLOAT, backend="float beam8")
    unpaired_seed = replace(FLOAT, seed=7, utterance_errors=[("a", 2, 2), ("b", 2, 2)])
    rows = systems([other, beam, FLOAT, unpaired_seed, INT4])
    int4 = next(row for row in rows if row.last.quant == "int4")
    found = baseline(int4, rows)
    assert found is not None
    assert found.seeds == [1, 7]
    difference = int4.difference(found)
    assert difference is not None
    assert difference[0] == 0.25
    assert baseline(found, rows) is None
    assert int4.difference(systems([replace(FLOAT, seed=3)])[0]) is None
    assert int4.difference(systems([replace(FLOAT, utterance_errors=[("z", 0, 4)])])[0]) is None


def test_exports_are_compared_with_exports_and_leave_the_readme_as_it_is() -> None:
    exported = [
        replace(FLOAT, backend="onnx float greedy", bundle_bytes=4700),
        replace(INT4, backend="onnx w4a8 greedy", bundle_bytes=600),
        replace(INT4, backend="sherpa 2.0.1 w4a8 greedy", bundle_bytes=600),
    ]
    rows = systems([FLOAT, INT4, *exported])
    compared = {
        row.last.backend: base.last.backend if (base := baseline(row, rows)) else None
        for row in rows
        if row.last.quant == "int4"
    }
    assert compared == {
        "native greedy": "float greedy",
        "onnx w4a8 greedy": "onnx float greedy",
        "sherpa 2.0.1 w4a8 greedy": None,
    }
    assert summary([FLOAT, INT4, *exported]) == summary([FLOAT, INT4])
    assert "| int4, trained | onnx, sherpa 2.0.1 w4a8 |" in render(exported), "both made the same errors"


def test_the_page_has_a_table_for_each_part_and_share() -> None:
    page = render([FLOAT, INT4, replace(FLOAT, part="test-digits"), replace(FLOAT, reference_words=2)])
    assert page.count("## digits: dev-digits of digits") == 2
    assert page.count("## digits: test-digits of digits") == 1
    row = next(line for line in page.splitlines() if "int4, trained" in line and line.startswith("|"))
    assert "50.00 (50.00–50.00)" in row
    assert "+25.00 (+0.00 … +50.00)" in row
    assert "| same | 500 | 8.00 |" in row
    assert "commit 0" not in page, "a seed's own line stays in the records"
    assert render([FLOAT, INT4]) == render([FLOAT, INT4])


def test_check_says_whether_the_page_is_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, page = tmp_path / "records.jsonl", tmp_path / "RESULTS.md"
    arguments = [f"records={records}", f"output={page}"]
    assert main(arguments) == 1
    assert "no records" in capsys.readouterr().err
    append(records, FLOAT)
    assert main([*arguments, "check=true"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "check=true"]) == 0
    append(records, INT4)
    assert main([*arguments, "check=true"]) == 1
    assert "make results" in capsys.readouterr().err


def test_each_way_to_a_precision_has_a_row_and_says_which_it_is() -> None:
    distilled, shared = replace(INT4, method=Method.distilled), replace(INT4, method=Method.shared)
    rounded, gptq = replace(INT4, method=Method.ptq), replace(INT4, method=Method.gptq)
    page = render([FLOAT, INT4, distilled, shared, rounded, gptq])
    for name in ("trained", "distilled", "one run for several precisions", "not trained", "not trained, GPTQ"):
        assert f"| int4, {name} | 1 |" in page
    rows = [line.split("|")[1:4] for line in summary([FLOAT, INT4, distilled, rounded, gptq]).splitlines()[2:]]
    cells = [[cell.strip() for cell in row] for row in rows if row]
    assert cells[-2:] == [
        ["int4", "50.00 (50.00–50.00)", "50.00 (50.00–50.00)"],
        ["int4", "50.00 (50.00–50.00) distilled", "50.00 (50.00–50.00) GPTQ"],
    ]
    assert summary([FLOAT, distilled]).count("distilled") == 1


def test_a_table_escapes_its_cells() -> None:
    assert markdown(["a", "b", "c"], [["1|2", "x\ny", "<b>"]]).splitlines()[2:] == ["| 1\\|2 | x y | &lt;b> |"]


def test_names_from_outside_are_no_markdown() -> None:
    strange = "a|b <script>alert(1)</script>\n## `x` & [red]"
    record = replace(FLOAT, experiment=strange, corpus=strange, model=strange, backend="a|b <i> greedy")
    record = replace(record, hardware=strange, command=strange, config_hash=strange, commit=strange)
    text = render([record, replace(record, model="m")])
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        f"## {escaped(strange)}: {FLOAT.part} of {escaped(strange)}"
    ]
    (row,) = (line for line in lines if line.startswith("| a"))
    assert len(re.split(r"(?<!\\)\|", row)) == 11, "nine cells"
    assert "<script>" not in text
    assert "<script>" not in summary([record])
    assert code("python train.py") == "`python train.py`"
    assert code("a `b`") == "`` a `b` ``"


CLEAN = replace(FLOAT, experiment="clean")  # of one seed


def test_the_tables_of_the_readme_follow_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, output, readme = tmp_path / "records.jsonl", tmp_path / "RESULTS.md", tmp_path / "README.md"
    paths = [f"records={records}", f"output={output}", f"readme={readme}"]
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    append(records, FLOAT)
    assert main(paths) == 0
    for record in (replace(FLOAT, seed=2), INT4, replace(INT4, seed=2), replace(INT4, quant="int3"), CLEAN):
        append(records, record)
    assert main([*paths, "check=true"]) == 1
    assert "RESULTS.md is not what" in capsys.readouterr().err
    assert main(paths) == 0
    assert main([*paths, "check=true"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| int4 | 50.00 (50.00–50.00) |  | +25.00" in text
    assert "int3" not in text, "the README has the headlines"
    assert "clean" not in text, "of several seeds"
    readme.write_text(text.replace("50.00", "5.00"))
    assert main([*paths, "check=true"]) == 1
    assert "README.md is not what" in capsys.readouterr().err


def test_what_each_way_gains_over_a_simpler_one() -> None:
    rounded = replace(INT4, method=Method.ptq, utterance_errors=[("a", 2, 2), ("b", 1, 2)], wer=0.75)
    taught = replace(
        INT4, method=Method.distilled, config_hash="ghi", utterance_errors=[("a", 0, 2), ("b", 0, 2)], wer=0.0
    )
    exported = replace(taught, backend="onnx w4a8 greedy")
    table = gains(systems([FLOAT, rounded, INT4, taught, exported])).splitlines()
    cells = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert len(table) == 3
    assert "GPTQ" not in table[0], "nothing was rounded by it"
    assert cells[0] == "int4"
    assert cells[1].startswith("−25.00 (")
    assert cells[2].startswith("−50.00 (")
    assert len(cells) == 3
    assert "\n".join(gains(systems([FLOAT, rounded, INT4])).splitlines()) in render([FLOAT, rounded, INT4])
    assert gains(systems([FLOAT, INT4])) == ""
    assert gains(systems([replace(FLOAT, config_hash="def"), rounded, INT4])) == ""  # phases of one run
    assert "minus WER of the other" not in render([FLOAT, INT4])


def test_rows_of_unequal_training_say_so() -> None:
    longer = replace(FLOAT, quant="int4", method=Method.qat, steps=900, bundle_bytes=FLOAT.bundle_bytes // 6)
    equal = [replace(FLOAT, steps=900), longer]
    assert all(section.columns == COLUMNS for section in sections(equal))
    (section,) = sections([replace(FLOAT, steps=600), longer])
    assert section.columns == (*COLUMNS, "steps")
    assert [row[-1] for row in section.rows] == ["600", "900"]
    assert "900 steps" in render([replace(FLOAT, steps=600), longer])
    assert "steps" not in render(equal).partition("Each seed")[0].partition("| model |")[2]
    (unknown,) = sections([replace(FLOAT, steps=None), longer])
    assert [row[-1] for row in unknown.rows] == ["not recorded", "900"]

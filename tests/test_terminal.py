"""Every table of every command fits a terminal, and what comes from outside is no markup."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.cells import cell_len

from nibble.bench import checklist
from nibble.bench.__main__ import table as bench_table
from nibble.bench.records import read as read_bench
from nibble.commands import info, sweep
from nibble.commands.demo import demo_table
from nibble.evaluation.printing import comparison, print_results
from nibble.export.parity import LayerParity, parity_table
from nibble.features.options import FeatureConfig
from nibble.model.options import ModelConfig
from nibble.model.transducer import Transducer
from nibble.report import formats
from nibble.report.comparison import Comparison, Row, Speech
from nibble.report.precisions import COLUMNS, sections
from nibble.report.tables import System, baseline, systems
from nibble.runs.records import Record, read
from nibble.sensitivity.analysis import Analysis
from nibble.sensitivity.printing import print_analysis, ranking
from nibble.terminal import Console, Table

REPOSITORY = Path(__file__).parents[1]


def records(experiment: str, part: str, model: str) -> list[Record]:
    every = read(REPOSITORY / "results" / "records.jsonl")
    return [one for one in every if (one.experiment, one.part, one.model) == (experiment, part, model)]


DEMO = ("demo", "test-commands", "conformer_xs")
DIGITS = ("digits", "dev-digits", "conformer_xxs_lstm")


class Kept(Console):
    """Keeps the tables that are printed."""

    def __init__(self) -> None:
        super().__init__(file=io.StringIO())
        self.tables: list[Table] = []

    def print(self, *objects: Any, **_: Any) -> None:
        self.tables += [one for one in objects if isinstance(one, Table)]


def of_a_report() -> list[Table]:
    found = systems(records(*DIGITS))
    rows = [Row(one, (), "optimizer.learning_rate=0.002", baseline(one, found)) for one in found]
    return [formats.table(Comparison(Speech("digits", "dev-digits", found[0].last.reference_words, ""), rows))]


def of_an_evaluation() -> list[Table]:
    some: Any = [SimpleNamespace(record=one) for one in records(*DEMO)]
    return [comparison(some)]


def layers() -> list[str]:
    with torch.device("meta"):
        model = Transducer(
            ModelConfig(name="some", width=16, layers=12, heads=2, predictor_width=16, joiner_width=16),
            FeatureConfig(),
            30,
        )
    return [name for name, module in model.named_modules() if hasattr(module, "weight")]


def of_the_sensitivity() -> list[Table]:
    names, bits = layers(), (2, 3, 4, 8)
    damage = {name: {width: 12.3 / width for width in bits} for name in names}
    weights, assignment = dict.fromkeys(names, 1_234_567), dict(zip(names, cycle(bits), strict=False))
    found: Any = SimpleNamespace(damage=damage, weights=weights, assignment=assignment)
    return [ranking(found)]


def of_an_export() -> list[Table]:
    rows = [
        LayerParity(name, 4, equal, 1.2e-3, 1.2e-6, 0.5)
        for name, equal in zip(layers(), cycle((True, False, None)), strict=False)
    ]
    return [parity_table(rows, "sherpa_w4a8: each layer with the input of torch's, against torch")]


def of_a_sweep() -> list[Table]:
    found = records(*DIGITS)
    folders = [f"runs/digits/2026-01-31_12-00-0{number}_int4_lowrank_seed{number}" for number in range(3)]
    jobs = [
        sweep.Job(
            number,
            [f"seed={number}", "experiment=digits", "model=conformer_xxs_lstm", "quant=int4_lowrank,float"],
            state,
            folder,
            problem,
        )
        for number, (state, folder, problem) in enumerate(
            [
                (sweep.State.complete, folders[0], ""),
                (sweep.State.started, "", ""),
                (
                    sweep.State.failed,
                    "",
                    "data.corpus_dir=/somewhere/else/speech: no folder of that name; give one that is there",
                ),
            ]
        )
    ]
    sweep.show(jobs, console := Kept())
    return [*console.tables, *(Table(COLUMNS, one.rows, title=one.title) for one in sections(found))]


def of_the_benchmarks() -> list[Table]:
    every = read_bench(REPOSITORY / "results" / "bench.jsonl")
    return [
        bench_table([one for one in every if one.bench == bench]) for bench in dict.fromkeys(one.bench for one in every)
    ]


def of_a_gpu() -> list[Table]:
    reason = "exit 1: FAILED tests/kernels/test_cuda_kernels.py::test_on_a_gpu[17] (runs/gpu/tests.log)"
    step = checklist.Step("native is reference", [], 1)
    return [
        checklist.table([checklist.Outcome(step, "failed", reason, 12.0), checklist.Outcome(step, "passed", "", 1.0)])
    ]


def of_info() -> list[Table]:
    console = Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(info, "Console", lambda: console)
        assert info.main() == 0
    return console.tables


TABLES: dict[str, Callable[[], Sequence[Table]]] = {
    "report": of_a_report,
    "evaluate": of_an_evaluation,
    "sensitivity": of_the_sensitivity,
    "export": of_an_export,
    "sweep": of_a_sweep,
    "bench": of_the_benchmarks,
    "gpu": of_a_gpu,
    "demo": lambda: [demo_table(records(*DEMO))],
    "info": of_info,
}


def shown(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def texts(table: Table) -> list[str]:
    """All that a table has to say."""
    cells = [cell for row in (table.header, *table.rows) for cell in row]
    return [" ".join(str(text).split()) for text in (table.title, table.note, *cells)]


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", TABLES)
def test_no_cell_is_broken_in_a_word_or_cut(name: str, width: int) -> None:
    tables = TABLES[name]()
    assert tables
    for table in tables:
        lines = shown(table, width).splitlines()
        found = " ".join(" ".join(lines).split())
        for text in texts(table):
            assert text in found
        assert found.count("…") == sum(text.count("…") for text in texts(table))
        for line in lines:
            assert cell_len(line) <= width or len(line.split()) == 1, line
        assert "" not in lines


def test_numbers_stand_under_their_header_and_text_before_them() -> None:
    table = Table(
        ("name", "kind", "weight", "size"), [("a" * 10, "some kind", "1.25", "7"), ("b", "", "100.00", "")], left=2
    )
    assert shown(table, 60).splitlines() == [
        "name        kind       weight  size",
        "─" * 35,
        "aaaaaaaaaa  some kind    1.25     7",
        "b                      100.00",
    ]
    assert shown(table, 30).splitlines() == [
        "name        kind",
        "    weight  size",
        "─" * 21,
        "aaaaaaaaaa  some kind",
        "      1.25     7",
        "b",
        "    100.00",
    ]


def test_what_is_wider_than_the_terminal_is_broken_between_words() -> None:
    path = "runs/" + "x" * 40
    rows = [("1", f"what was wrong is\nin {path} and nowhere else at all")]
    assert shown(Table(("job", "why"), rows, left=2), 30).splitlines() == [
        "job",
        "    why",
        "─" * 30,
        "1",
        "    what was wrong is in",
        f"    {path}",
        "    and nowhere else at all",
    ]
    wide = Table(("name", "n"), [("日本語日本語", "1")])
    assert shown(wide, 20).splitlines()[2] == "日本語日本語  1"


OUTSIDE = "[red]a[/red] [/nothing] :smile: [link=http://x]b\x1b[2Jc"
SAFE = OUTSIDE.replace("\x1b", "\\x1b")


def test_text_from_outside_is_no_markup() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor")
    console.print(OUTSIDE)
    console.print(OUTSIDE, soft_wrap=True)
    console.print(Table((OUTSIDE,), [(OUTSIDE,)], title=OUTSIDE, note=OUTSIDE))
    text = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert [line for line in text.splitlines() if "─" not in line] == [SAFE] * 6


@pytest.mark.parametrize("name", ["evaluate", "sweep", "report", "sensitivity"])
def test_names_from_outside_in_what_commands_print(name: str, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=300)
    (demo, *_) = records(*DEMO)
    other = f"{OUTSIDE} greedy"
    strange = replace(demo, model=OUTSIDE, experiment=OUTSIDE, corpus=OUTSIDE, backend=other, peak_bytes=1)
    strange = replace(strange, hardware=OUTSIDE)
    if name == "evaluate":
        words = ("[red]said[/red] :smile: \x1b[2J", "[red]heard[/red]")
        result: Any = SimpleNamespace(
            record=strange,
            size=SimpleNamespace(sixteen_bit=None),
            hardware=SimpleNamespace(max_rtf=1.0, max_bundle_bytes=1),
            worst=lambda _: [(("[red]id", *words), 1, 2)],
        )
        print_results([result, result], console)
        expected = [SAFE, "[red]said[/red]", ":smile:", "\\x1b[2J", words[1], "[red]id", "budget 1: exceeded", "kept"]
    elif name == "sweep":
        sweep.show([sweep.Job(0, [OUTSIDE], sweep.State.failed, "", OUTSIDE)], console)
        expected = [SAFE]
    elif name == "report":
        rows = [Row(System((strange,)), (), OUTSIDE, None)]
        console.print(formats.table(Comparison(Speech(OUTSIDE, "part", 1, ""), rows)))
        expected = [SAFE]
    else:
        damage = {OUTSIDE: {2: 0.5}}
        print_analysis(Analysis({OUTSIDE: 1}, damage, damage, written=[tmp_path / "[red]"]), console)
        expected = [SAFE, f"{tmp_path}/[red]"]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    for one in expected:
        assert one in text


def test_all_that_is_printed_goes_through_this_console() -> None:
    for path in (REPOSITORY / "src").rglob("*.py"):
        if path.name != "terminal.py":
            assert not re.search(r"rich\.(console|table)|from rich import", path.read_text()), (
                f"{path}: nibble.terminal"
            )


def test_the_environment_says_how_wide_a_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert Console(file=io.StringIO()).width == 60

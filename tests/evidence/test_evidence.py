"""What `make evidence` runs, in which order, and how it goes on after a failure."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from example_record import RECORD

from nibble import composition
from nibble.commands import evidence as command
from nibble.evidence import progress, tables
from nibble.evidence.steps import Kind, Place, steps
from nibble.evidence.tables import SPEECH, TABLES, Start, Table
from nibble.runs.run_file import RunFile, _write

ROOT = Path(__file__).parents[2]
TINY = (
    Table("digits", 3, ("data/digits",), precisions=("float", "int4"), folds=2, part="test"),
    Table("demo", 2, precisions=("float", "int4"), start=Start("demo_start", 2, seeds=(1,)), gptq=("int4",)),
)


class Commands:
    """Stands for the commands: remembers them, and leaves what they would leave."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.fails: Callable[[str], bool] = lambda _: False
        self.code = 0

    def __call__(self, words: tuple[str, ...]) -> "Commands":
        said = " ".join(words)
        self.said.append(said)
        self.code = int(self.fails(said))
        for place in (word.partition("=")[2] for word in words if word.startswith(("hydra.run.dir=", "resume="))):
            Path(place).mkdir(parents=True, exist_ok=True)
            _write(Path(place), RunFile("a", said, {}, None if self.code else asdict(RECORD)))
        if "nibble.data.speaker_folds" in said:
            for number in (1, 2):
                Path(f"data/digits-fold{number}").mkdir()
        return self

    def wait(self) -> int:
        return self.code


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """The commands that are run; data/digits is there."""
    commands = Commands()
    (tmp_path / "data/digits").mkdir(parents=True)
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "start", commands)
    monkeypatch.setattr(tables, "TABLES", TINY)
    published: list[str] = []
    monkeypatch.setattr(command, "publish", lambda paths, _: published.extend(map(str, paths)) or ["published"])
    commands.published = published  # type: ignore[attr-defined]
    return commands


def test_the_list_says_what_is_left_and_runs_nothing(ran: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/digits").rmdir()
    assert command.main(["list=true"]) == 0
    said = capsys.readouterr().out
    assert ran.said == []
    assert "0 of 12" in said
    assert "0.9 h" in said  # of digits: 12 trainings of 3 minutes, 36 models to evaluate in half a minute each
    assert SPEECH["data/digits"].split()[0] in said
    assert "python train.py experiment=demo quant=int4 seed=3 init_from=runs/evidence/demo_start/float_seed1" in said


def test_all_is_run_once_and_in_order(ran: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["threads=1"]) == 0
    assert ran.said[0] == "-m nibble.data.speaker_folds data/digits"
    kinds = [said.split()[0] for said in ran.said]
    assert kinds.count("train.py") == 12 + 1 + 6
    assert all("hardware.threads=1" in said for said in ran.said if said.startswith(("train.py", "evaluate.py")))
    start = next(number for number, said in enumerate(ran.said) if "experiment=demo_start" in said)
    assert start < min(number for number, said in enumerate(ran.said) if "init_from=" in said)
    gptq = [said for said in ran.said if "bundle_int4_gptq" in said]
    assert len(gptq) == 1
    assert ran.published == ["runs/evidence/digits", "runs/evidence/demo"]  # type: ignore[attr-defined]
    before = len(ran.said)
    assert command.main(["list=true"]) == 0
    assert "0.0 h" in capsys.readouterr().out
    assert command.main([]) == 0
    assert len(ran.said) == before


def test_what_does_not_need_a_failed_run_goes_on(ran: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    ran.fails = lambda said: "quant=int4 seed=2 data.corpus_dir=data/digits-fold1" in said
    assert command.main(["only=digits"]) == 1
    said = capsys.readouterr().out
    assert "failed: digits, train int4_fold1_seed2" in said
    assert "not whole: digits" in said
    assert ran.published == []  # type: ignore[attr-defined]
    models = [said for said in ran.said if said.startswith("evaluate.py")]
    assert len(models) == 5
    assert not any("int4_fold1_seed2" in said for said in models)
    ran.fails, before = (lambda _: False), len(ran.said)
    assert command.main(["only=digits"]) == 0
    again = ran.said[before:]
    assert again[0] == "train.py resume=runs/evidence/digits/int4_fold1_seed2"
    assert [said.split()[0] for said in again] == ["train.py", "evaluate.py"]


def test_a_run_that_was_trained_again_is_evaluated_again(ran: Commands) -> None:
    assert command.main(["only=digits"]) == 0
    before = len(ran.said)
    run = Path("runs/evidence/digits/float_fold2_seed1/run.json")
    run.unlink()
    assert command.main(["only=digits"]) == 0
    again = ran.said[before:]
    assert "hydra.run.dir=runs/evidence/digits/float_fold2_seed1" in again[0]
    assert len(again) == 1 + 1 + 4  # its training, the evaluation of float, and float rounded to four precisions


def test_a_trial_is_small_and_publishes_nothing(ran: Commands) -> None:
    assert command.main(["trial=true", "only=demo"]) == 0
    assert all("runs/trial/" in said for said in ran.said if "train.py" in said or "evaluate.py" in said)
    assert all("trainer.max_steps=4" in said for said in ran.said if said.startswith("train.py"))
    assert all("records=runs/trial/records.jsonl" in said for said in ran.said if said.startswith("evaluate.py"))
    assert ran.published == []  # type: ignore[attr-defined]


def test_an_unknown_table_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["only=digit"]) == 1
    assert "only=digit is no table; nearest: digits" in capsys.readouterr().err


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.experiment)
def test_commands_compose(table: Table) -> None:
    composition.register_schemas()
    planned = steps(table, Place(threads=1))
    training = next(
        step for step in planned if step.kind is Kind.train and "experiment=" + table.experiment in step.command
    )
    composition.check_command_line(ROOT / "conf", "train", training.command[1:])
    rounding = next(step for step in planned if step.kind is Kind.evaluate and "quant=int4" in step.command)
    composition.check_command_line(ROOT / "conf", "evaluate", rounding.command[1:])


def test_rows_of_a_table_differ_in_precision_speech_and_seed_alone() -> None:
    for table in TABLES:
        own = [
            step
            for step in steps(table, Place())
            if step.kind is Kind.train and f"/{table.experiment}/" in str(step.makes)
        ]
        varied = ("quant=", "seed=", "data.corpus_dir=", "hydra.run.dir=", "init_from=")
        assert len({tuple(word for word in step.command if not word.startswith(varied)) for step in own}) == 1
        starts = {word for step in own for word in step.command if word.startswith("init_from=")}
        assert len(starts) == (len(table.start.seeds) if table.start else 0)

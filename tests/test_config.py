"""Every file under conf/ composes, and a slip on the command line ends in one line that helps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nibble import cli
from nibble.config import from_plain, plain, typed
from nibble.errors import UserError
from nibble.evaluation.records import read

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
GROUPS = [
    *("data", "features", "model", "loss", "quant", "schedule"),
    *("optimizer", "hardware", "logger", "trainer", "experiment", "debug", "hparams_search"),
]
CHOICES = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml"))


def composed(*overrides: str):
    cli.register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=[*overrides, "run_dir=unused"])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_survives_a_round_trip(choice):
    config = typed(composed(choice))
    assert from_plain(plain(config)) == config


@pytest.mark.parametrize("command", cli.SCHEMAS)
def test_every_command_composes(command):
    cli.register_schemas()
    cli.check_command_line(CONF, command, [])


def test_every_file_at_the_top_is_of_a_command():
    assert sorted(cli.SCHEMAS) == sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_begins_with_its_command_and_what_it_costs(path):
    lines = path.read_text().partition("defaults:")[0].splitlines()
    assert lines[1].startswith(f"# python train.py experiment={path.stem}")
    assert re.search(r"^# Hardware.*Cost", " ".join(lines[2:]))
    ran_here = path.stem in {record.experiment for record in read(ROOT / "results" / "records.jsonl")}
    assert ran_here != any(line.startswith("# Not run here.") for line in lines)
    assert typed(composed(f"experiment={path.stem}")).name == path.stem


def test_groups_stand_in_the_order_data_flows():
    text = (CONF / "train.yaml").read_text()
    assert sorted([*GROUPS, "hydra"]) == sorted(path.name for path in CONF.iterdir() if path.is_dir())
    positions = [text.index(f"  - {group}:") for group in GROUPS]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.max_stps=3", r"no option 'trainer.max_stps'; nearest: trainer.max_steps"),
        ("+trainer.max_stps=3", r"nearest: trainer.max_steps"),
        ("quant=int5", r"no quant=int5; nearest: int\d"),
        ("quantt=int4", r"nearest: quant"),
        ("model.width=wide", r"model.width: .*'wide'.*Integer"),
        ("data.tokens=bep", r"data.tokens: .*bep"),
        ("quant.arithmetic=nativ", r"quant.arithmetic: .*nativ"),
        ("+seed=3", r"'seed' exists already: drop the \+"),
    ],
)
def test_a_slip_names_what_was_meant(override, expected):
    cli.register_schemas()
    with pytest.raises(UserError, match=expected):
        cli.check_command_line(CONF, "train", [override])


def test_a_slip_ends_the_command_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "train.py", "modle=conformer_l"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nearest: model" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.heads=5"], "model.heads=5 does not divide model.width"),
        (["model.kernel=8"], "model.kernel=8 .* 9"),
        (["model.heads=0"], "model.heads=0; give at least 1"),
        (["model.chunk_frames=0"], "model.chunk_frames=0; give at least 1 .*or null for whole utterances"),
        (["model=conformer_stream_s", "model.left_chunks=0"], "model.left_chunks=0; give at least 1"),
        (["model.chunk_frames=201"], "model.chunk_frames=201 with model.left_chunks=4 .* 1005; give at most 1000"),
        (["model=conformer_stream_s", "model.kernel=1"], "model.kernel=1 sees no past; .* give at least 3"),
        (["data.noise.kind=babble"], "data.noise.dir="),
        (["quant=int4", "quant.rules=[{match: '**', weight: {bits: 9}}]"], "weight bits is 9"),
        (["schedule.phases=[{at: 0.5, precision: float}]"], "begin with 0"),
        (["schedule.phases=[{at: 0, precision: float}, {at: 0.9, precision: rules, ramp: 0.2}]"], "ramp"),
    ],
)
def test_contradictions_name_the_option(overrides, expected):
    with pytest.raises(UserError, match=expected):
        typed(composed(*overrides))


def test_a_plus_before_an_option_of_the_default_run_is_accepted():
    assert typed(composed("quant=int4", "model=conformer_l", "+trainer.max_steps=3")).trainer.max_steps == 3


def test_a_notebook_composes_what_the_command_line_does():
    config = cli.training_config(["quant=int4", "trainer.max_steps=7", "run_dir=here"])
    assert (config.quant.name, config.trainer.max_steps, config.run_dir) == ("int4", 7, "here")
    with pytest.raises(UserError, match=r"nearest: trainer\.max_steps"):
        cli.training_config(["trainer.max_stepz=7", "run_dir=here"])

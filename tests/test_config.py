"""Every file under conf/ composes, and a slip on the command line ends in one line that helps."""

import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from nibble import composition
from nibble.commands import hydra_command
from nibble.composition import typed
from nibble.config import from_plain, plain
from nibble.errors import UserError
from nibble.evaluation.options import EvaluateConfig
from nibble.export.options import ExportConfig
from nibble.hardware import HardwareConfig
from nibble.post_training.options import QuantizeConfig
from nibble.quant.spec import ActivationSpec, LowRank, QuantConfig, Rule, Sparsity, WeightSpec
from nibble.runs.records import read
from nibble.sensitivity.options import SensitivityConfig

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
GROUPS = [
    *("data", "features", "model", "loss", "quant", "schedule"),
    *("optimizer", "hardware", "logger", "trainer", "callbacks", "metrics"),
    *("experiment", "debug", "hparams_search"),
]
CHOICES = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "hydra")


def composed(*overrides: str):
    composition.register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=[*overrides, "run_dir=unused"])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_survives_a_round_trip(choice):
    config = typed(composed(choice))
    assert from_plain(plain(config)) == config


@pytest.mark.parametrize("command", composition.SCHEMAS)
def test_every_command_composes(command):
    composition.register_schemas()
    composition.check_command_line(CONF, command, [])


def test_every_file_at_the_top_is_of_a_command():
    assert sorted(composition.SCHEMAS) == sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_begins_with_its_command_and_what_it_costs(path):
    lines = path.read_text().partition("defaults:")[0].splitlines()
    assert lines[1].startswith(f"# python train.py experiment={path.stem}")
    assert re.search(r"^# Hardware.*Cost", " ".join(lines[2:]))
    ran_here = path.stem in {record.experiment for record in read(ROOT / "results" / "records.jsonl")}
    assert ran_here != any(line.startswith("# Not run here.") for line in lines)
    assert typed(composed(f"experiment={path.stem}")).name == path.stem


def test_nothing_says_again_what_is_the_default():
    default = QuantConfig().arithmetic.value
    assert not [path.stem for path in CONF.glob("quant/*.yaml") if f"arithmetic: {default}" in path.read_text()]


@pytest.mark.parametrize("command", sorted(set(composition.SCHEMAS) - {"train"}))
def test_a_command_that_does_not_train_leaves_no_folder(command):
    composition.register_schemas()
    found = composition.check_command_line(CONF, command, [])
    assert (found.hydra.run.dir, found.hydra.output_subdir, found.hydra.job.chdir) == (".", None, False)
    assert list(found.hydra.job_logging.root.handlers) == ["console"]


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
    composition.register_schemas()
    with pytest.raises(UserError, match=expected):
        composition.check_command_line(CONF, "train", [override])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["quant", "int4"], "^'quant' is no option with its value; give quant=int4$"),
        (["quant"], "^'quant' is no option with its value; give quant=VALUE$"),
        (["quant", "seed=1"], "give quant=VALUE$"),
        (["data.corpus_dir=/a=b"], """in quotes, which the shell must leave there: 'data.corpus_dir="/a=b"'$"""),
        (["data.corpus_dir=/a(b"], """'data.corpus_dir="/a\\(b"'$"""),
        (
            ["data.corpus_dir=/a,b"],
            """one value .* 'data.corpus_dir="/a,b"'; for a list, .*; for a run of each, add -m""",
        ),
    ],
)
def test_a_word_that_hydra_cannot_read(words, expected):
    with pytest.raises(UserError, match=expected):
        composition.check_words(words, multirun=False)


def test_a_path_with_a_comma_in_a_sweep(tmp_path):
    (tmp_path / "a,b").mkdir()
    composition.check_words(["seed=1,2", f"data.corpus_dir={tmp_path}/a,c"])
    with pytest.raises(UserError, match=r"would be several runs, but .*a,b exists; for that one path"):
        composition.check_words([f"data.corpus_dir={tmp_path}/a,b"])
    composition.check_words([f"data.corpus_dir='{tmp_path}/a,b'"])


def test_a_run_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for option in ("hydra.run.dir", "hydra.sweep.dir"):
        with pytest.raises(UserError, match=rf"cannot create .*: Not a directory. Choose another with {option}=DIR"):
            hydra_command.new_folder(f"{tmp_path}/file/run", option, [f"{option}={tmp_path}/file/run"])


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
        (["model.subsampling_factor=8"], "model.subsampling=conv has a factor of 4; give model.subsampling=depthwise"),
        (["model.subsampling=depthwise", "model.subsampling_factor=6"], "model.subsampling_factor=6; give 4 or 8"),
        (["model.predictor=stateless", "model.predictor_layers=2"], "model.predictor=stateless has one layer"),
        (
            ["model.chunk_frames=8", "model.subsampling=padded"],
            "model.subsampling=padded sees zeros where a chunk ends",
        ),
        (["model.chunk_frames=8", "features=nemo"], "features.normalization=utterance needs the whole utterance"),
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


def parts(options, prefix=""):
    """Every dataclass in a configuration, and the name of the group that it is."""
    yield prefix, options
    for each in fields(options):
        value = getattr(options, each.name)
        for one in value if isinstance(value, list) else [value]:
            if is_dataclass(one):
                yield from parts(one, f"{prefix}{each.name}.")


def numbers(options):
    """The names of its fields that hold a number, or several, and each time one that it cannot be."""
    for name, kind in get_type_hints(type(options)).items():
        inner = {kind, *get_args(kind)}
        several = list in {get_origin(one) for one in inner}
        found = {*inner, *(one for of in inner for one in get_args(of))} & {int, float}
        for wrong in [-(10**9), 10**30, *([float("nan")] if float in found else [])] if found else []:
            yield name, [wrong, wrong] if several else wrong


RULE = Rule("**", WeightSpec(), ActivationSpec(), Sparsity())
LAYERS = QuantConfig(rules=[RULE], low_rank=[LowRank("**")])
COMMANDS = [
    typed(composed("model=conformer_stream_s", "schedule=staged")),
    EvaluateConfig(checkpoint="a", hardware=HardwareConfig()),
    QuantizeConfig(checkpoint="a", quant=LAYERS, hardware=HardwareConfig()),
    ExportConfig(checkpoint="a"),
    SensitivityConfig(checkpoint="a", hardware=HardwareConfig()),
]


def test_every_number_has_a_range():
    tried = set()
    for command in COMMANDS:
        for group, options in parts(command):
            for name, wrong in numbers(options):
                # What is not called by its name is called in words.
                in_words = {"at": "starts at|at=", "keep": "keeps", "of": "keeps"}.get(name, name)
                try:
                    with pytest.raises(UserError, match=in_words):
                        replace(options, **{name: wrong})
                except BaseException as error:
                    raise AssertionError(f"{group}{name}={wrong}: {error}") from error
                tried.add((type(options), name))
    assert len(tried) > 75


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hardware.batch_duration_s=0", "hardware.batch_duration_s=0.0; give more than 0"),
        ("hardware.workers=-1", "hardware.workers=-1; give 0 to 1024"),
        ("hardware.devices=-2", "hardware.devices=-2; give at least 1"),
        ("hardware.accelerator=gpuu", "hardware.accelerator=gpuu; nearest: gpu"),
        ("hardware.precision=bf16", "hardware.precision=bf16; nearest: bf16-true, bf16-mixed"),
        ("trainer.max_steps=0", "trainer.max_steps=0; give at least 1, or null"),
        ("trainer.max_steps=-1", "trainer.max_steps=-1; give at least 1, or null"),
        ("trainer.ema_decay=1", "trainer.ema_decay=1.0; give 0 to 0.99999, or null"),
        ("optimizer.betas=[0.9]", r"optimizer.betas=\[0.9\]; give two"),
        ("data.min_duration_s=40", "data.min_duration_s=40 leaves nothing below data.max_duration_s=10; give less"),
        ("seed=-1", "seed=-1; give 0 to 4294967295"),
    ],
)
def test_a_number_outside_its_range_says_what_to_give(override, message):
    with pytest.raises(UserError, match=message):
        typed(composed(override))


def test_the_size_of_groups_is_one_option():
    for command in ("evaluate", "quantize", "export"):
        composition.register_schemas()
        words = ["checkpoint=a", "quant=int4_grouped", "quant.group_size=64"]
        found = composition.check_command_line(CONF, command, words)
        assert (found.quant.name, found.quant.rules[-1].weight.group_size) == ("int4_g64", 64)
    config = typed(composed("quant=int4_grouped"))
    assert (config.quant.name, config.quant.rules[-1].weight.group_size) == ("int4_g32", 32)
    with pytest.raises(UserError, match=r"quant.group_size=64: no rule of quant=int4 uses it; .*int4_grouped"):
        typed(composed("quant=int4", "quant.group_size=64"))


def test_a_plus_before_an_option_of_the_default_run_is_accepted():
    assert typed(composed("quant=int4", "model=conformer_l", "+trainer.max_steps=3")).trainer.max_steps == 3


def test_a_notebook_composes_what_the_command_line_does():
    config = composition.training_config(["quant=int4", "trainer.max_steps=7", "run_dir=here"])
    assert (config.quant.name, config.trainer.max_steps, config.run_dir) == ("int4", 7, "here")
    with pytest.raises(UserError, match=r"nearest: trainer\.max_steps"):
        composition.training_config(["trainer.max_stepz=7", "run_dir=here"])

"""`--help` says what each option means, and Tab completes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nibble import composition
from nibble.commands import hydra_command
from nibble.commands.option_comments import comments, options

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", composition.SCHEMAS)
def test_every_option_is_documented_where_it_is_defined(command):
    # What evaluation changes of the data a model was trained with is documented with the options of training.
    own = [
        one for one in options(composition.SCHEMAS[command]) if command == "train" or not one.name.startswith("data.")
    ]
    assert len(own) > 10
    assert [one.name for one in own if not one.meaning] == []


def test_comments_behind_and_above_a_field_are_read():
    written = comments(composition.SCHEMAS["export"])
    assert written["parity"].startswith("compare each layer")
    assert written["labels_per_frame"].startswith("How many labels sherpa-onnx, which emits one token a frame,")
    assert "target" not in written


def test_help_shows_what_is_chosen_and_what_it_means(capsys):
    composition.register_schemas()
    hydra_command.show_help(ROOT / "conf", "train", ["quant=int4", "trainer.max_steps=3"], "Train.")
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("Train.")
    assert "quant= how many bits, where: analog, float," in said
    assert "[int4]" in said
    assert "trainer.max_steps=3 optimizer steps; overrides max_epochs" in said
    assert "quant.rules[].weight.bits=8 1 ... 8" in said
    assert "one of char, bpe" in said


def test_help_leaves_out_what_is_not_set(capsys):
    composition.register_schemas()
    hydra_command.show_help(ROOT / "conf", "export", [], "Export.")
    said = capsys.readouterr().out
    assert "quant=null" in said
    assert "quant.name" not in said


def completions(*lines: str) -> list[list[str]]:
    """What bash offers after `python train.py ...`, by the function that the documented command installs."""
    script = """
        eval "$(python train.py --shell-completion install=bash)"
        complete -p python | grep -q hydra_bash_completion || exit 3
        for COMP_LINE in "$@"; do
            COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            hydra_bash_completion
            echo "${COMPREPLY[@]}"
        done
    """
    typed = [f"python train.py {line}" for line in lines]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "bash", *typed],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_tab_completes_in_bash():
    group, option, unknown = completions("quant=int4_2", "-m quant=int4,int8 trainer.max_st", "run_dir=")
    assert group == ["quant=int4_24"]
    assert option == ["trainer.max_steps="]
    assert unknown == []  # Hydra knows it when the run begins

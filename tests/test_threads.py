"""Threads spin briefly, unless the user has chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nibble.threads import CHOICES, SPINS, VARIABLE

ROOT = Path(__file__).parents[1]
WATCH = """
import os, runpy, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print({choice: os.environ[choice] for choice in sys.argv[2:] if choice in os.environ})
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, Watch())
entry = sys.argv[1]
if entry.endswith(".py"):
    runpy.run_path(entry)
else:
    runpy.run_module(entry)
import torch
"""
ENTRIES = [
    "train.py",
    "evaluate.py",
    "nibble.info",
    "nibble.transcribe",
    "nibble.quantize",
    "nibble.bench",
]


def when_torch_is_imported(entry: str, **environment: str) -> str:
    """What the environment says at that moment."""
    clean = {name: value for name, value in os.environ.items() if name not in CHOICES}
    word = str(ROOT / entry) if entry.endswith(".py") else entry
    command = [sys.executable, "-c", WATCH, word, *CHOICES]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_command_says_it_before_torch_is_imported(entry):
    assert when_torch_is_imported(entry) == str({VARIABLE: SPINS})


@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "PASSIVE"}, {VARIABLE: "7"}])
def test_a_user_who_has_chosen_is_left_alone(chosen):
    assert when_torch_is_imported("nibble.commands.info", **chosen) == str(chosen)


def test_the_tests_wait_as_the_commands_do():
    assert any(name in os.environ for name in CHOICES)

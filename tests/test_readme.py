"""What the README and the pages of docs/ tell a person to type works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import flag_override

from nibble import composition
from nibble.bench.__main__ import BenchOptions
from nibble.bench.gpu import GpuOptions
from nibble.commands.check import CheckOptions
from nibble.commands.dashboard import DashboardOptions
from nibble.commands.evidence import EvidenceOptions
from nibble.commands.lengthen import LengthenOptions
from nibble.commands.report import ReportOptions
from nibble.commands.shar import SharOptions
from nibble.commands.speaker_folds import FoldsOptions
from nibble.commands.transcribe import TranscribeOptions
from nibble.commands.words import read_words

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
TEXT = "\n".join([README, *PAGES.values()])
COMMANDS = sorted(set(re.findall(r"(?:^|`)((?:python|make) [^`\n]*?)(?=`|\s+#|\s*$)", TEXT, flags=re.MULTILINE)))
TRAIN = [command for command in COMMANDS if command.startswith("python train.py") and "resume=" not in command]
WORDS = {
    "nibble.bench": BenchOptions,
    "nibble.bench.gpu": GpuOptions,
    "nibble.commands.evidence": EvidenceOptions,
    "nibble.dashboard": DashboardOptions,
    "nibble.data.check": CheckOptions,
    "nibble.data.lengthen": LengthenOptions,
    "nibble.data.shar": SharOptions,
    "nibble.data.speaker_folds": FoldsOptions,
    "nibble.report": ReportOptions,
    "nibble.transcribe": TranscribeOptions,
}
WITH_WORDS = [
    match for command in COMMANDS if (match := re.match(r"python -m (\S+) (.+)", command)) and match[1] in WORDS
]
COMPOSED = [
    match
    for command in COMMANDS
    if (match := re.match(r"python (?:-m nibble\.)?(evaluate|quantize|export|sensitivity)(?:\.py)? (.+)", command))
    and "…" not in command
]
MODULES = sorted({word for command in COMMANDS for word in re.findall(r"python -m (nibble[\w.]*)", command)})


def test_the_readme_has_commands():
    assert len(TRAIN) >= 3
    assert MODULES
    assert "make demo" in COMMANDS
    assert "make test" in COMMANDS


@pytest.mark.parametrize("command", TRAIN)
def test_training_commands_compose(command):
    composition.register_schemas()
    words = shlex.split(command)[2:]
    if "--help" in words:
        return
    # A sweep is composed job by job: the first value of each option stands for it.
    overrides = [re.sub(r"=([^\[{,]+),.*", r"=\1", word) for word in words if word != "-m"]
    composition.check_command_line(ROOT / "conf", "train", overrides)


@pytest.mark.parametrize("command", COMPOSED, ids=lambda command: command[0])
def test_options_of_commands_with_composition_are_taken(command):
    composition.register_schemas()
    config = composition.check_command_line(ROOT / "conf", command[1], shlex.split(command[2]))
    with flag_override(config, "struct", False):
        config.pop("hydra")
    assert composition.typed_as(composition.SCHEMAS[command[1]], config).checkpoint


@pytest.mark.parametrize("command", WITH_WORDS, ids=lambda command: command[0])
def test_options_of_commands_without_composition_exist(command):
    words = shlex.split(command[2].replace("NAME ", "gemm "))
    assert "--help" in words or read_words(WORDS[command[1]], words)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_targets_exist(command):
    done = subprocess.run(["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", [["train.py"], ["evaluate.py"], *(["-m", module] for module in MODULES)])
def test_help_is_there(script):
    done = subprocess.run([sys.executable, *script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, _index):
        return (self.layer(batch) - batch.sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_the_snippet_for_a_module_of_ones_own_runs(tmp_path, monkeypatch):
    (snippet,) = re.findall(r"## A module of your own\n.*?```python\n(.*?)```", PAGES["precisions.md"], flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    module, loader = Regression(), torch.utils.data.DataLoader(torch.randn(64, 8), batch_size=16)
    exec(snippet.replace("max_steps=1000", "max_steps=8, logger=False, enable_checkpointing=False"), locals())
    assert not module.layer.weight_codes.is_floating_point()
    assert module.layer(torch.randn(3, 8)).shape == (3, 1)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:src|conf|results|tests)/[\w./]+)`", TEXT))))
def test_paths_exist(path):
    if path in ("conf/quant/int4_joiner8.yaml", "conf/quant/mixed.yaml"):  # files that the reader is told to write
        return
    assert (ROOT / path).exists()


def test_the_readme_can_be_read_at_once():
    assert len(README.splitlines()) <= 150


def test_links_of_the_readme_exist():
    missing = [link for link in re.findall(r"\]\(([^)#:]+)\)", README) if not (ROOT / link).exists()]
    assert not missing


def test_every_page_is_in_the_site_and_its_links_hold(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= {path.stem for path in tmp_path.glob("*.html")}

"""docs/deployment.md: its commands run, and the versions that it names are those that are installed and asked for."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from omegaconf import flag_override

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")
pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")

from nibble import composition
from nibble.commands.export import export
from nibble.config import Config
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.export.options import ExportConfig
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.exported import INT4_OPSET, least_sherpa_onnx
from nibble.runs.records import read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
RUN = "runs/NAME/RUN"


def options(name: str, words: list[str]) -> object:
    """The options of a command that Hydra composes."""
    composition.register_schemas()
    config = composition.check_command_line(composition.conf_dir(), name, words)
    with flag_override(config, "struct", False):
        config.pop("hydra")
    return composition.typed_as(composition.SCHEMAS[name], config)


def test_the_commands_export_and_measure(write_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
    block = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert block
    run = write_run("int4", "rules")
    monkeypatch.chdir(tmp_path)
    folders = []
    for line in block[1].replace(RUN, str(run)).splitlines():
        command, *words = shlex.split(line.removeprefix("python ").removeprefix("-m "))
        if command == "nibble.export":
            given = options("export", words)
            assert isinstance(given, ExportConfig)
            folders.append(export(given).name)
        else:
            given = options("evaluate", [*words, "hardware.threads=1"])
            assert isinstance(given, EvaluateConfig)
            evaluate_checkpoints(given)
    assert folders == ["sherpa_w4a8", "sherpa_w8a8"]
    assert [record.backend.split()[0] for record in read(Path("runs/records.jsonl"))] == ["sherpa"]


def test_versions_are_those_that_the_tests_load(write_run) -> None:
    packages = json.loads((ROOT / "tests/export/clients/package.json").read_text())["dependencies"]
    for name, version in packages.items():
        assert f"`{name}` {version}" in PAGE
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["export"]
    (sherpa,) = (word.removeprefix("sherpa-onnx==") for word in pinned if word.startswith("sherpa-onnx=="))
    assert f"`sherpa-onnx` {sherpa}" in PAGE
    config: Config = load_checkpoint(write_run()).config
    assert f"{least_sherpa_onnx(INT4_OPSET, config)} for `w4a8` and `w4`" in PAGE
    config.model.max_duration_frames = 4
    assert f"durations (TDT) needs {least_sherpa_onnx(17, config)}" in PAGE


@pytest.mark.parametrize("target", ["x86-64 server", "aarch64: Raspberry Pi class, phone", "Browser", "Node"])
def test_each_target_answers_the_same_questions(target: str) -> None:
    table = PAGE.partition(f"### {target}\n")[2].partition("\n#")[0]
    questions = re.findall(r"^\| ([^|]+) \|", table, flags=re.MULTILINE)
    assert questions == ["question", "---", "what was run", "least version", "append", "encoding"]

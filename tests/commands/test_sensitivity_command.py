"""`python -m nibble.sensitivity`, as a person types it and from inside."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nibble import composition
from nibble.commands import hydra_command
from nibble.composition import typed
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.sensitivity.analysis import analyse
from nibble.sensitivity.options import DamageMethod, SensitivityConfig, SensitivityPart
from nibble.sensitivity.printing import print_analysis
from nibble.terminal import Console

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    """A copy of conf/ to write to."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    return tmp_path / "conf"


def options(run: Path, **values) -> SensitivityConfig:
    given = {"bits": [2, 8], "method": DamageMethod.fisher, "name": "mine", "max_utterances": 6, **values}
    return SensitivityConfig(
        checkpoint=str(run), plot="plots/mine.png", hardware=HardwareConfig(threads=1, workers=0), **given
    )


def shown(found) -> str:
    console = Console(width=120, file=io.StringIO())
    print_analysis(found, console)
    return console.file.getvalue()


def test_what_it_writes_is_a_precision_for_train(write_run, conf):
    found = analyse(options(write_run(), average_bits=4.0), conf)
    composition.register_schemas()
    with initialize_config_dir(str(conf), version_base="1.3"):
        quant = typed(compose("train", ["quant=mine", "run_dir=x"])).quant
    assert quant.name == "mine"
    assert {rule.weight.bits for rule in quant.rules} == {2, 8}
    assert (conf / "quant" / "mine.yaml").read_text().splitlines()[1] == f"# {found.prediction}"
    assert Path("plots/mine.png").read_bytes().startswith(b"\x89PNG")
    text = shown(found)
    assert "joiner.output" in text
    assert "bits a weight" in text
    with pytest.raises(UserError, match=r"mine.yaml exists already; give another name="):
        analyse(options(write_run(), average_bits=4.0), conf)


def test_without_a_budget_it_ranks_only(write_run, conf):
    found = analyse(options(write_run(), part=SensitivityPart.dev, method=DamageMethod.loss), conf)
    assert found.assignment is None
    assert [path.name for path in found.written] == ["mine.png", "sensitivity_mine.json"]
    assert not (conf / "quant" / "mine.yaml").exists()
    text = shown(found)
    assert "rank correlation" in text
    assert "chosen" not in text
    order = [line.split()[0] for line in text.splitlines() if line.startswith(("encoder", "joiner", "predictor"))]
    assert order == sorted(found.damage, key=lambda layer: -found.damage[layer][2])


def test_a_float_phase_of_a_quantized_run_will_do(write_run, conf):
    assert analyse(options(write_run("int4", "float")), conf).damage


def test_quantized_weights_are_refused(write_run, conf):
    with pytest.raises(UserError, match=r"last.ckpt is at int4; .* give a float run"):
        analyse(options(write_run("int4", "rules")), conf)


def test_as_typed(write_run, tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nibble.sensitivity", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    some = [f"checkpoint={write_run()}", "method=fisher", "hardware.threads=1", "hardware.workers=0"]
    done = run(*some, "target_bytes=40000", "output=here.yaml")
    assert done.returncode == 0, done.stderr
    assert "bytes in the bundle" in done.stdout
    assert (tmp_path / "here.yaml").read_text().startswith("# python -m nibble.sensitivity checkpoint=")
    assert (tmp_path / "runs" / "sensitivity_mixed.png").is_file()
    for wrong, text in [("target_bites=1", "nearest: target_bytes"), ("bits=[4]", "error: bits=[4]; give at least")]:
        done = run(*some, wrong)
        assert done.returncode == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_a_package_without_conf_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nibble.sensitivity"])
    with pytest.raises(SystemExit, match=r"sensitivity.yaml is missing; clone the repository"):
        hydra_command.run(tmp_path / "conf", "sensitivity", lambda: None)

"""What `make gpu` does around a GPU: its list of steps, limits, failures, the table; and what compares two steps."""

import time
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nibble.bench import gpu, gpu_step
from nibble.bench.__main__ import main as bench
from nibble.bench.checklist import Step, failed, python, run, table
from nibble.kernels.gpu import missing_gpu

REPOSITORY = Path(__file__).resolve().parents[2]


def words(name: str, text: str, limit_s: float = 20, **more: object) -> Step:
    return Step(name, python("-c", text), limit_s, **more)  # type: ignore[arg-type]


def test_steps_go_on_after_a_failure(tmp_path, capsys):
    steps = [
        words("good", "import os; print(os.environ['WORD'])", environment={"WORD": "hello"}),
        words("bad one", "import sys; print('what was wrong'); sys.exit(3)"),
        words("left out", "raise SystemExit(1)", missing=lambda: "there is no tool"),
        words("last", "pass"),
    ]
    outcomes = run(steps, tmp_path / "out", total_s=60)
    assert [outcome.state for outcome in outcomes] == ["passed", "failed", "left out", "passed"]
    assert (tmp_path / "out" / "good.log").read_text() == "hello\n"
    (one,) = failed(outcomes)
    assert one.reason == f"exit 3: what was wrong ({tmp_path}/out/bad_one.log)"
    assert "[2/4] bad one: failed" in capsys.readouterr().out
    with (console := Console(width=200)).capture() as shown:
        console.print(table(outcomes))
    assert "there is no tool" in shown.get()


def test_a_step_ends_at_its_limit_with_all_that_it_started(tmp_path):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    started = time.monotonic()
    outcomes = run([words("slow", child, limit_s=1), words("late", "pass")], tmp_path, total_s=0.5)
    assert time.monotonic() - started < 20
    assert [outcome.state for outcome in outcomes] == ["failed", "failed"]
    assert "not done after" in outcomes[0].reason
    assert outcomes[1].reason == "no time was left for it"


def test_correctness_comes_first_and_all_fits(tmp_path):
    names = [step.name for step in gpu.steps(tmp_path, tmp_path / "no corpus")]
    assert names.index("native is reference") < names.index("tests") < names.index("train_step") < names.index("gemm")
    assert len(set(names)) == len(names)
    (mini,) = (step for step in gpu.steps(tmp_path, tmp_path / "none") if step.name == "librispeech_mini")
    assert "--corpus DIR" in (mini.missing() or "")


def test_every_module_and_script_of_the_list_is_there(tmp_path):
    for step in gpu.steps(tmp_path, tmp_path):
        first = step.command[1]
        assert find_spec(step.command[2]) if first == "-m" else first.startswith("-") or (REPOSITORY / first).is_file()
    assert "NIBBLE_KERNELS=reference" in listed(tmp_path)


def listed(folder) -> str:
    with redirect_stdout(text := StringIO()):
        assert gpu.main(["--list", "--out", str(folder)]) == 0
    return text.getvalue()


@pytest.mark.skipif(missing_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys, tmp_path):
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert "--list prints what would be run" in capsys.readouterr().err
    assert bench(["gemm", "--device", "cuda"]) == 1
    assert "leave --device out to measure the CPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench(["size", "--device", "cuda"])
    assert "runs on the CPU alone" in capsys.readouterr().err


def test_what_two_steps_do_not_share():
    torch.manual_seed(0)
    one = {"loss": torch.tensor(3.0), "a": torch.randn(50), "b": torch.randn(3)}
    near = {name: x + 1e-5 * torch.randn_like(x) for name, x in one.items()}
    assert not gpu_step.differences(one, near)
    assert "losses 3.000000 and 3.1" in gpu_step.differences(one, {**one, "loss": torch.tensor(3.1)})[0]
    turned = gpu_step.differences(one, {**one, "a": -one["a"]})
    assert "cosine" in turned[0]
    assert turned[1].startswith("a: apart by 2.0")
    assert gpu_step.differences(one, {**one, "b": one["b"] / 0}) == ["b: not finite"]
    assert "other parameters: ['b']" in gpu_step.differences(one, {"loss": one["loss"], "a": one["a"]})[0]

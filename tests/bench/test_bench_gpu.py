"""What `make gpu` does around a GPU: its list of steps, limits, failures, the table; and what compares two steps."""

import time
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
import torch

from nibble.bench import gpu, gpu_step
from nibble.bench.__main__ import main as bench
from nibble.bench.checklist import Step, failed, python, run, table
from nibble.kernels.gpu import missing_gpu
from nibble.terminal import Console

REPOSITORY = Path(__file__).resolve().parents[2]


def words(name: str, text: str, share_s: float = 20, **more: object) -> Step:
    return Step(name, python("-c", text), share_s, **more)  # type: ignore[arg-type]


def test_steps_go_on_after_a_failure(tmp_path, capsys):
    steps = [
        words("good", "import os; print(os.environ['WORD'])", environment={"WORD": "hello"}),
        words("bad one", "import sys; print('what was wrong'); sys.exit(3)"),
        words("left out", "raise SystemExit(1)", missing=lambda: "there is no tool"),
        words("last", "pass"),
    ]
    outcomes = run(steps, tmp_path / "out")
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
    outcomes = run([words("slow", child, share_s=1), words("next", "pass")], tmp_path)
    assert time.monotonic() - started < 20
    assert [outcome.state for outcome in outcomes] == ["failed", "passed"]
    assert outcomes[0].reason.startswith("not done after 1 s")


def test_what_a_step_leaves_of_its_time_is_for_those_after_it(tmp_path):
    steps = [words("quick", "pass", share_s=30), words("longer", "import time; time.sleep(0.3)", share_s=0.1)]
    assert [outcome.state for outcome in run(steps, tmp_path)] == ["passed", "passed"]


def test_correctness_comes_first_and_all_fits(tmp_path):
    steps = gpu.steps(tmp_path, tmp_path / "no corpus")
    names = [step.name for step in steps]
    first = ["build", "LSTM kernel", "native is reference", "tests", "train_step", "gemm"]
    assert sorted(first, key=names.index) == first
    assert len(set(names)) == len(names)
    assert sum(step.share_s for step in steps) <= 590
    mini = next(step for step in steps if step.name == "librispeech_mini")
    assert "corpus=DIR" in (mini.missing() or "")


def test_the_files_of_gpu_tests(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert gpu.LSTM_TEST in gpu.gpu_tests()
    assert "tests/test_gpu_marker.py" not in gpu.gpu_tests()


def test_every_module_and_script_of_the_list_is_there(tmp_path):
    for step in gpu.steps(tmp_path, tmp_path):
        first = step.command[1]
        assert find_spec(step.command[2]) if first == "-m" else first.startswith("-") or (REPOSITORY / first).is_file()
    assert "NIBBLE_KERNELS=reference" in listed(tmp_path)


def listed(folder) -> str:
    with redirect_stdout(text := StringIO()):
        assert gpu.main(["list=true", f"out={folder}"]) == 0
    return text.getvalue()


@pytest.mark.skipif(missing_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys, tmp_path):
    assert gpu.main([f"out={tmp_path}"]) == 1
    assert "list=true prints what would be run" in capsys.readouterr().err
    assert bench(["gemm", "device=cuda"]) == 1
    assert "leave device out to measure the CPU" in capsys.readouterr().err
    assert bench(["size", "device=cuda"]) == 1
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

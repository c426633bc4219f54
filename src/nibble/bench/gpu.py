"""python -m nibble.bench.gpu: all checks and benchmarks for a GPU, in ten minutes; `make gpu OUT=DIR` writes to DIR.

It builds the kernels, compares a step of training with the reference, runs the tests that need a GPU, times steps and
products, trains thirty steps and evaluates their bundle. Correctness comes first. A step that fails does not stop those
after it; the exit code is then 1. DIR gets a log of each step, and bench.jsonl, whose lines may be added to
results/bench.jsonl.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from nibble import stopping
from nibble.bench import checklist
from nibble.bench.__main__ import table
from nibble.bench.checklist import Step, python
from nibble.bench.records import read
from nibble.commands.words import run_words
from nibble.errors import UserError
from nibble.kernels.gpu import missing_gpu
from nibble.runs.run_folder import RunFolder
from nibble.terminal import Console

LSTM_TEST = "tests/kernels/test_triton_recurrence.py"


@dataclass
class GpuOptions:
    """The options of `python -m nibble.bench.gpu`."""

    out: str = "runs/gpu"  # folder for the logs and bench.jsonl
    corpus: str = "data/librispeech-mini"  # folder of librispeech-mini; without it, that step is left out
    list: bool = False  # print the commands of the steps and run none


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if a step failed or there is no GPU."""
    return run_words(_run, GpuOptions, __doc__, words)


def _run(options: GpuOptions) -> int:
    out = Path(options.out)
    planned = steps(out, Path(options.corpus))
    if options.list:
        for step in planned:
            words = [*(f"{name}={value}" for name, value in step.environment.items()), *step.command]
            print(" ".join(words) + (f"  # left out: {reason}" if (reason := step.missing()) else ""))
        return 0
    if (reason := missing_gpu()) is not None:
        raise UserError(f"{reason}; list=true prints what would be run")
    outcomes = checklist.run(planned, out)
    console = Console()
    if measured := read(out / "bench.jsonl"):
        console.print(table(measured))
    console.print(checklist.table(outcomes))
    failed = checklist.failed(outcomes)
    for outcome in failed:
        print(f"failed: {outcome.step.name}: {outcome.reason}", file=sys.stderr)
    return int(bool(failed))


def steps(out: Path, corpus: Path) -> list[Step]:
    """The steps, in order; correctness first."""
    native, reference, run = out / "native.pt", out / "reference.pt", RunFolder(out / "run")
    bench = [*python("-m", "nibble.bench"), "device=cuda", f"records={out / 'bench.jsonl'}"]
    train = [*python("train.py"), "hardware=gpu", "logger=csv", "records=null"]
    sanitizer = compute_sanitizer()
    test = python("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider")
    return [
        Step("build", python("-m", "nibble.kernels.build", "cuda", "require=true"), 60),
        Step("info", python("-m", "nibble.info"), 15),
        Step("LSTM kernel", [*test, LSTM_TEST], 30),
        Step("native step", python("-m", "nibble.bench.gpu_step", "save", str(native)), 60),
        Step(
            "reference step",
            python("-m", "nibble.bench.gpu_step", "save", str(reference)),
            45,
            environment={"NIBBLE_KERNELS": "reference"},
        ),
        Step("native is reference", python("-m", "nibble.bench.gpu_step", "compare", str(native), str(reference)), 15),
        Step("tests", [*test, *gpu_tests()], 100),
        Step(
            "memcheck",
            [
                *(sanitizer or "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "1"),
                *(*test, "tests/kernels/test_cuda_kernels.py", "-k", "test_on_a_gpu and 17"),
            ],
            40,
            missing=lambda: None if sanitizer else "no compute-sanitizer; it comes with the CUDA toolkit",
            environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        ),
        Step("train_step", [*bench, "train_step"], 80),
        Step("gemm", [*bench, "gemm"], 20),
        Step(
            "thirty steps",
            [*train, "quant=int4", "model=conformer_l", "trainer.max_steps=30", f"hydra.run.dir={run.path}"],
            50,
            missing=lambda: None if find_spec("espeakng_loader") else "no speech; pip install -e .[embedded]",
        ),
        Step(
            "evaluate",
            [*python("evaluate.py"), f"checkpoint={run.bundle}", "hardware=gpu", "records=null"],
            25,
            missing=lambda: None if run.bundle.is_dir() else "the training of thirty steps left no bundle",
        ),
        Step(
            "librispeech_mini",
            [
                *train,
                *("experiment=librispeech_mini", "model=conformer_s", "quant=int4", "trainer.max_steps=100"),
                *(f"data.corpus_dir={corpus}", f"hydra.run.dir={out / 'librispeech_mini'}"),
            ],
            25,
            missing=lambda: None if corpus.is_dir() else f"{corpus} is not there; corpus=DIR says where it is",
        ),
        Step("encoder", [*bench, "encoder"], 15),
        Step("loss", [*bench, "loss"], 10),
    ]


def gpu_tests() -> list[str]:
    """The test files that need a GPU: others may need packages that a bare machine lacks."""
    files = sorted(path for path in Path("tests").rglob("test_*.py") if "mark.gpu" in path.read_text())
    return [str(path) for path in files if path.name != "test_gpu_marker.py"] or ["tests"]


def compute_sanitizer() -> str | None:
    """The path of CUDA's memory checker, if it is installed."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("compute-sanitizer") or shutil.which(f"{home}/bin/compute-sanitizer")


if __name__ == "__main__":
    stopping.run(main)

"""Peak memory and time of joiner and transducer loss, forward and backward: the fused loss against torchaudio's."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nibble import provenance
from nibble.bench.fresh import fresh_config
from nibble.bench.gpu_counts import counts
from nibble.bench.records import Measurement, with_counts
from nibble.bench.timing import in_turns, measurements, torch_threads
from nibble.errors import UserError
from nibble.model.fused_loss import fused_transducer_loss
from nibble.model.joiner import Joiner
from nibble.model.loss import transducer_loss
from nibble.model.targets import Targets
from nibble.own_process import in_process
from nibble.progress import track

MODEL = "conformer_l"  # the model whose joiner is measured
FUSED, REFERENCE = "fused", "joiner + torchaudio"
_ROUNDS = 5
_STEPS = 3  # that memory is measured over: what the allocator keeps in one step adds to the next


class Sizes(NamedTuple):
    """The sizes of a batch of equally long utterances."""

    batch: int = 16
    frames: int = 250
    labels: int = 60
    vocabulary: int = 1024

    def __str__(self) -> str:
        return "B {}, T {}, U {}, V {}".format(*self)


SIZES = Sizes()


def measure(sizes: Sizes = SIZES, rounds: int = _ROUNDS) -> list[Measurement]:
    """Memory of a process on one thread, time on one thread and on all.

    Raises:
        UserError: this system does not say how much memory a process takes.
    """
    names, cpu = (FUSED, REFERENCE), torch.device("cpu")
    turns = track(names, "measuring memory", len(names))
    peaks = {name: in_process(partial(peak_bytes, name, sizes)) for name in turns}
    found = [_memory(sizes, peaks, cpu)]
    for threads in sorted({1, torch.get_num_threads()}):
        with torch_threads(threads):
            found += _time(sizes, rounds, cpu)
    return found


def measure_gpu(sizes: Sizes = SIZES, rounds: int = _ROUNDS) -> list[Measurement]:
    """Memory and time on a GPU."""
    gpu = torch.device("cuda")
    peaks = {name: _peak_of_gpu(name, sizes, gpu) for name in (FUSED, REFERENCE)}
    return [_memory(sizes, peaks, gpu), *_time(sizes, rounds, gpu)]


def peak_bytes(name: str, sizes: Sizes) -> int:
    """How far the memory of this process rises during some steps of a contender.

    Raises:
        UserError: this system does not say how much memory a process takes.
    """
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    steps(Sizes(2, 3, 2, 5), cpu)[name]()  # libraries that are loaded when first used don't count
    step = steps(sizes, cpu)[name]
    before = _resident_bytes("VmRSS")
    for _ in range(_STEPS):
        step()
    return _resident_bytes("VmHWM") - before


def steps(sizes: Sizes, device: torch.device) -> dict[str, Callable[[], None]]:
    """Forward and backward pass of each contender, on the same joiner and batch."""
    model = fresh_config(MODEL, "float").model
    generator = torch.Generator().manual_seed(0)
    joiner = Joiner(model.width, model.predictor_width, model.joiner_width, sizes.vocabulary).to(device)
    encoded = torch.randn(sizes.batch, sizes.frames, model.width, generator=generator)
    predicted = torch.randn(sizes.batch, sizes.labels + 1, model.predictor_width, generator=generator)
    labels = torch.randint(1, sizes.vocabulary, (sizes.batch, sizes.labels), generator=generator)
    lengths, label_lengths = (torch.full((sizes.batch,), size) for size in (sizes.frames, sizes.labels))
    encoded, predicted = (x.to(device).requires_grad_() for x in (encoded, predicted))
    lengths, labels, label_lengths = (x.to(device) for x in (lengths, labels, label_lengths))

    def fused() -> Tensor:
        counts = [sizes.frames] * sizes.batch, [sizes.labels] * sizes.batch  # else a GPU is waited for
        return fused_transducer_loss(joiner, encoded, predicted, Targets(lengths, labels, label_lengths, counts))

    def reference() -> Tensor:
        return transducer_loss(joiner(encoded, predicted), lengths, labels, label_lengths).sum()

    def step(loss: Callable[[], Tensor]) -> None:
        loss().backward()
        for x in (encoded, predicted, *joiner.parameters()):
            x.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return {FUSED: lambda: step(fused), REFERENCE: lambda: step(reference)}


def _time(sizes: Sizes, rounds: int, device: torch.device) -> list[Measurement]:
    threads = torch.get_num_threads()
    where = "GPU" if device.type == "cuda" else f"{threads} thread{'s' if threads > 1 else ''}"
    contenders = steps(sizes, device)
    times = in_turns(contenders, rounds, f"timing losses, {where}")
    counted = {name: counts(step) for name, step in contenders.items()} if device.type == "cuda" else {}
    case, pairs = f"{sizes}: time, {where}", [(FUSED, REFERENCE)]
    return with_counts(measurements("loss", case, times, pairs, threads, device), counted)


def _memory(sizes: Sizes, peaks: dict[str, int], device: torch.device) -> Measurement:
    return Measurement(
        bench="loss",
        case=f"{sizes}: memory{', GPU' if device.type == 'cuda' else ''}",
        contender=FUSED,
        baseline=REFERENCE,
        ratio=peaks[FUSED] / peaks[REFERENCE],
        median_ms=None,
        threads=1,
        **provenance.here(device),
        bytes=peaks[FUSED],
    )


def _peak_of_gpu(name: str, sizes: Sizes, device: torch.device) -> int:
    """As `peak_bytes`, of what torch allocates on a GPU."""
    step = steps(sizes, device)[name]
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(_STEPS):
        step()
    return torch.cuda.max_memory_allocated(device) - before


def _resident_bytes(field: str) -> int:
    """VmRSS: the memory that this process takes; VmHWM: the most it ever took (proc(5))."""
    status = Path("/proc/self/status")
    if not status.is_file():
        raise UserError(f"python -m nibble.bench loss reads the memory of a process in {status}; run it on Linux")
    (kilobytes,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(kilobytes)

"""python -m nibble.bench size: measure, print a table, and add the measurements to runs/bench.jsonl.

With --device cuda, encoder, gemm, loss and train_step measure a GPU: kernels launched and waits of the CPU stand beside
milliseconds. `make gpu` runs them, and more.

encoder     time of the encoder of conformer_l on one thread, ours and others', in torch and ONNX Runtime; five minutes
feeding     hours of audio an hour from a loader, and how long a training waits for it; two minutes
gemm        time of a linear layer of 4-bit weights against float32, int8 and others' int4; three minutes
manifest    time and memory before the first batch of a corpus of --lines utterances; a minute a million
loss        memory and time of joiner and transducer loss, fused against torchaudio's; ten minutes
size        bytes of the bundles of conformer_xs, s, m and l at int4 and int4_24, against float32; about a minute
streaming   time of a chunk and till the first label, conformer_stream_s and l in sherpa-onnx, one thread; five minutes
threads     time of a training step by how its threads wait, alone and beside a busy process; two minutes
together    training time of one run for several precisions, against a run for each; about a minute
train_step  time of one step of int4 training, native and fake, against float32; ten minutes
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nibble import stopping
from nibble.bench import (
    encoder,
    encoder_gpu,
    feeding,
    gemm,
    gemm_gpu,
    loss,
    manifest,
    size,
    streaming,
    threads,
    together,
    train_step,
    train_step_gpu,
)
from nibble.bench.records import Measurement, append, cells
from nibble.errors import UserError
from nibble.kernels.gpu import missing_gpu
from nibble.terminal import Console, Table

BENCHES: dict[str, Callable[[], list[Measurement]]] = {
    "encoder": encoder.measure,
    "feeding": feeding.measure,
    "gemm": gemm.measure,
    "loss": loss.measure,
    "manifest": manifest.measure,
    "size": size.measure,
    "streaming": streaming.measure,
    "threads": threads.measure,
    "together": together.measure,
    "train_step": train_step.measure,
}
ON_A_GPU: dict[str, Callable[[], list[Measurement]]] = {
    "encoder": encoder_gpu.measure,
    "gemm": gemm_gpu.measure,
    "loss": loss.measure_gpu,
    "train_step": train_step_gpu.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if the measurements cannot be kept."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=sorted(BENCHES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=f"cuda: of {', '.join(ON_A_GPU)}")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="of feeding; without it, the embedded one")
    parser.add_argument("--lines", type=int, metavar="N", help=f"of manifest; {manifest.LINES:,} if left out")
    parser.add_argument("--records", type=Path, default=Path("runs/bench.jsonl"), metavar="FILE")
    options = parser.parse_args(arguments)
    if options.corpus and options.bench != "feeding":
        parser.error(f"{options.bench} needs no --corpus; only feeding takes one")
    if options.lines and options.bench != "manifest":
        parser.error(f"{options.bench} has no --lines; only manifest takes them")
    if options.device == "cuda" and options.bench not in ON_A_GPU:
        parser.error(f"{options.bench} runs on the CPU alone; leave --device out")
    try:
        if options.device == "cuda" and (reason := missing_gpu()) is not None:
            raise UserError(f"--device cuda: {reason}; leave --device out to measure the CPU")
        measure = (ON_A_GPU if options.device == "cuda" else BENCHES)[options.bench]
        if options.corpus:
            found = feeding.measure(options.corpus)
        else:
            found = manifest.measure(options.lines) if options.lines else measure()
        Console().print(table(found))
        for measurement in found:
            append(options.records, measurement)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def table(measurements: Sequence[Measurement]) -> Table:
    """One row a measurement."""
    header, *rows = cells(measurements)
    return Table(header, rows, left=2)


if __name__ == "__main__":
    stopping.run(main)

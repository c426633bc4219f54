"""python -m nibble.bench size: measure, print a table, and add the measurements to runs/bench.jsonl.

With device=cuda, encoder, gemm, loss and train_step measure a GPU: kernels launched and waits of the CPU stand beside
milliseconds. `make gpu` runs them, and more.

encoder     time, size, load time and memory of the encoder of conformer_l, or of model=NAME, on one thread, ours and
            others', in torch and ONNX Runtime; five minutes, and half an hour and 16 GB for fastconformer_xl
feeding     hours of audio an hour from a loader, and how long a training waits for it; two minutes
gemm        time of a linear layer of 4-bit weights against float32, int8 and others' int4; three minutes
manifest    time and memory before the first batch of a corpus of lines= utterances; a minute a million
long_stream an hour through conformer_stream_s, in sherpa-onnx and torch: growth of memory and latency; five minutes
loss        memory and time of joiner and transducer loss, fused against torchaudio's; ten minutes
size        bytes of the bundles of conformer_xs, s, m and l, or of model=NAME, at int4 and int4_24, or of what
            checkpoint=RUN has trained, against float32; about a minute
streaming   time of a chunk and till the first label, conformer_stream_s and l in sherpa-onnx, one thread; five minutes
threads     time of a training step by how its threads wait, alone and beside a busy process; two minutes
together    training time of one run for several precisions, against a run for each; about a minute
transcribe  time of whole transcription, files to text, ours and sherpa-onnx's of conformer_l; ten minutes
train_step  time of one step of int4 training, native and fake, against float32; ten minutes
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from nibble import stopping
from nibble.bench import (
    encoder,
    encoder_gpu,
    feeding,
    gemm,
    gemm_gpu,
    long_stream,
    loss,
    manifest,
    size,
    streaming,
    threads,
    together,
    train_step,
    train_step_gpu,
    transcribe,
)
from nibble.bench.records import Measurement, append, cells
from nibble.commands.words import BARE, run_words
from nibble.errors import UserError, nearest
from nibble.kernels.gpu import missing_gpu
from nibble.ranges import COUNT, check
from nibble.terminal import Console, Table

BENCHES: dict[str, Callable[[], list[Measurement]]] = {
    "encoder": encoder.measure,
    "feeding": feeding.measure,
    "gemm": gemm.measure,
    "long_stream": long_stream.measure,
    "loss": loss.measure,
    "manifest": manifest.measure,
    "size": size.measure,
    "streaming": streaming.measure,
    "threads": threads.measure,
    "together": together.measure,
    "train_step": train_step.measure,
    "transcribe": transcribe.measure,
}
ON_A_GPU: dict[str, Callable[[], list[Measurement]]] = {
    "encoder": encoder_gpu.measure,
    "gemm": gemm_gpu.measure,
    "loss": loss.measure_gpu,
    "train_step": train_step_gpu.measure,
}

OF_A_MODEL: dict[str, Callable[[str], list[Measurement]]] = {
    "encoder": encoder.measure,
    "size": lambda model: size.measure((model,)),
}
ON_SPEECH: dict[str, Callable[[Path], list[Measurement]]] = {
    "feeding": feeding.measure,
    "transcribe": transcribe.measure,
}


@dataclass
class BenchOptions:
    """The options of `python -m nibble.bench`."""

    bench: list[str] = field(default_factory=list, metadata=BARE)  # one of the names above
    device: str = "cpu"  # cpu or cuda
    corpus: str | None = None  # feeding: a folder of parts; transcribe: of recordings; null: the embedded corpus
    checkpoint: str | None = None  # size: a run, of which each size is measured at each precision; null: fresh models
    model: str | None = None  # encoder and size: a file of conf/model, such as fastconformer_xl; null: as above
    lines: int | None = None  # manifest: how many utterances; null: a million
    records: str = "runs/bench.jsonl"  # file that the measurements are added to

    def __post_init__(self) -> None:
        check(self, "", lines=COUNT)
        if len(self.bench) != 1 or self.bench[0] not in BENCHES:
            raise UserError(f"give one bench: {nearest(' '.join(self.bench), BENCHES)}")
        if self.device not in ("cpu", "cuda"):
            raise UserError(f"device={self.device}; give cpu or cuda")
        if self.device == "cuda" and self.name not in ON_A_GPU:
            raise UserError(f"{self.name} runs on the CPU alone; leave device out")
        if self.corpus and self.name not in ON_SPEECH:
            raise UserError(f"{self.name} takes no corpus=; only {' and '.join(ON_SPEECH)} do")
        if self.checkpoint and self.name != "size":
            raise UserError(f"{self.name} takes no checkpoint=; only size does")
        if self.model and (self.name not in OF_A_MODEL or self.device != "cpu" or self.checkpoint):
            raise UserError(
                f"model={self.model}: {' and '.join(OF_A_MODEL)} take it, on the CPU and without checkpoint"
            )
        if self.lines and self.name != "manifest":
            raise UserError(f"{self.name} takes no lines=; only manifest does")

    @property
    def name(self) -> str:
        """Of the bench."""
        return self.bench[0]


def main(words: list[str] | None = None) -> int:
    """Returns 0, or 1 if nothing can be measured here, or the measurements cannot be kept."""
    return run_words(_measure, BenchOptions, __doc__, words)


def _measure(options: BenchOptions) -> None:
    if options.device == "cuda" and (reason := missing_gpu()) is not None:
        raise UserError(f"device=cuda: {reason}; leave device out to measure the CPU")
    measure = (ON_A_GPU if options.device == "cuda" else BENCHES)[options.name]
    if options.corpus:
        measure = partial(ON_SPEECH[options.name], Path(options.corpus))
    if options.model:
        measure = partial(OF_A_MODEL[options.name], options.model)
    if options.checkpoint:
        measure = partial(size.measure_run, Path(options.checkpoint))
    if options.lines:
        measure = partial(manifest.measure, options.lines)
    found = measure()
    Console().print(table(found))
    for measurement in found:
        append(Path(options.records), measurement)


def table(measurements: Sequence[Measurement]) -> Table:
    """One row a measurement."""
    header, *rows = cells(measurements)
    return Table(header, rows, left=2)


if __name__ == "__main__":
    stopping.run(main)

"""The benchmarks' part of RESULTS.md, from results/bench.jsonl: one table for each benchmark."""

from collections.abc import Sequence

from nibble.bench.records import Measurement, cells
from nibble.report.tables import code, escaped, markdown, short_commit

_EXPLAINED = {
    "encoder": (
        "Time of an encoder with fresh weights and the joiner's projection of it, on one thread. *nn.Conv1d*: with "
        "depthwise convolutions as they are usually written. Torch's int8 is `quantize_dynamic`; ONNX Runtime's is its "
        "tool of that name on our float export, one scale a channel, products only (its integer convolutions take "
        "longer than those in float); MatMulNBits has blocks of 128 and accuracy level 4. Ours have the activations' "
        "scales of training, one a token; in torch it is the encoder of a bundle as `transcribe` runs it. **bytes**: "
        "of the encoder's file. **ratio**: contender over baseline, the median over rounds, of CPU time; **wall ms** "
        "counts what other processes took as well."
    ),
    "feeding": (
        "A loader goes through the training speech once, on one thread of the process that is timed, its files in the "
        "page cache, and makes batches: log-mel from decoded audio (`features=fbank`), from a file for each utterance "
        "(`features=fbank_stored`), or the same features read by Lhotse from tar files (Shar). Then `train.py` trains, "
        "on one thread, and says what it waits for. **ratio** to its audio: hours of audio delivered, or trained on, "
        "in an hour; to the time it takes: the share of it that training is without a batch, the median over windows "
        "of five steps, the first left out."
    ),
    "gemm": (
        "Time of one linear layer with 4-bit weights, quantizing its activations to 8 bits included, against what "
        "users would pick instead, on one thread (CPU time) and on all (wall time), with the weights in cache. Torch's "
        "dynamic int8 is that of `quantize_dynamic`, torchao's has 8-bit weights (for 4 its wheels have no CPU "
        "kernels); ONNX Runtime's has signed weights, one scale a channel; MatMulNBits has blocks of 128 and accuracy "
        "level 4. **ratio**: contender over baseline, the median over rounds; a mean is the geometric one."
    ),
    "loss": (
        "Forward and backward pass of the joiner of conformer_l and the transducer loss, in float32; all utterances "
        "are equally long. The fused loss, the default, against the joiner's logits in torchaudio's "
        "(`loss=rnnt_torchaudio`). "
        "**memory**: how far that of a process of their own rises in three steps. **ratio**: contender over baseline."
    ),
    "size": (
        "Bytes of a whole bundle, all its files counted: packed integers, scales, what stays in 16 bits, names, "
        "configuration, tokenizer, model card. **ratio**: four bytes for each parameter of the float model, over these "
        "bytes. The weights are fresh (bytes depend on shapes alone), the labels 1024 byte pairs of a generated text."
    ),
    "streaming": (
        "A chunk, from its samples to its labels: log-mel features, encoder and search of sherpa-onnx, which is fed a "
        "chunk of noise at a time. Weights are fresh, and blank is certain: a label would add one call of the decoder. "
        "The first label: what sherpa-onnx waits for from the beginning of an utterance, then its first chunk. "
        "**ratio** to its audio: over the time that the chunk lasts, or that the wait takes."
    ),
    "together": (
        "Training time of one run for several precisions, against the sum of a run for each: the median time of a step "
        "at each precision, times how many such steps the schedules have. **ratio**: contender over baseline."
    ),
    "train_step": (
        "Time of one step of training, forward, backward and optimizer: four utterances of ten seconds with forty "
        "labels of 1024. The fused loss is the default (older records call it `loss=rnnt_fused`); torchaudio's, on one "
        "thread, is `loss=rnnt_torchaudio` (in older records `loss=rnnt`). **ratio**: contender over baseline, "
        "the median over rounds, of CPU time; on several threads, of wall time."
    ),
}
_FOR_A_GPU_TOO = ("gemm", "loss", "train_step")


def render(measurements: Sequence[Measurement]) -> str:
    """A section for each benchmark, in the order of the file; of equal measurements the last one counts."""
    benches = dict.fromkeys(found.bench for found in measurements)
    return "\n".join(_section(bench, [found for found in measurements if found.bench == bench]) for bench in benches)


def _section(bench: str, measurements: Sequence[Measurement]) -> str:
    last = {(found.case, found.contender, found.baseline): found for found in measurements}
    origins = dict.fromkeys(
        f"- {escaped(found.hardware)}, CPU threads: {found.threads}{_rounds(found)}; "
        f"commit {short_commit(found.commit)}; {code(found.command)}"
        for found in last.values()
    )
    parts = [f"## Benchmark: {escaped(bench)}\n", *([f"{_EXPLAINED[bench]}\n"] if bench in _EXPLAINED else [])]
    if bench in _FOR_A_GPU_TOO and not any(case.endswith("GPU") for case, *_ in last):
        parts.append("On a GPU: not measured.\n")
    header, *rows = cells(list(last.values()))
    return "\n".join([*parts, markdown(header, rows), *origins, ""])


def _rounds(found: Measurement) -> str:
    if found.rounds is None:
        return ""
    clock = "CPU time" if found.clock == "cpu" else "wall time"
    return f"; ratio: median of {found.rounds} rounds, {clock}"

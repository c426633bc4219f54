"""BENCHMARKS.md from results/bench.jsonl."""

from collections.abc import Sequence

from nibble.bench.records import Measurement, cells
from nibble.report.tables import code, escaped, markdown, without_repeats

_EXPLAINED = {
    "encoder": (
        "CPU time of an encoder with fresh weights on one thread, the joiner's projection included. Torch's int8 is "
        "`quantize_dynamic`; ONNX Runtime's is its tool of that name, on products alone; MatMulNBits has blocks of 128 "
        "and accuracy level 4. *nn.Conv1d*: depthwise convolutions as they are usually written. **ratio**: contender "
        "over baseline."
    ),
    "feeding": (
        "Hours of audio that a loader delivers in an hour on one thread, by where its features come from, and that "
        "`train.py` trains on; then the share of its time that training is without a batch."
    ),
    "gemm": (
        "Time of one linear layer with 4-bit weights, quantizing its activations included, on one thread (CPU time) "
        "and on all (wall time): the geometric mean over the shapes of a Conformer block. torchao's has 8-bit weights "
        "(for 4 its wheels have no CPU kernels). **ratio**: contender over baseline."
    ),
    "loss": (
        "Forward and backward pass of the joiner of conformer_l and the transducer loss, in float32: the fused loss, "
        "the default, against torchaudio's of all logits. **ratio**: contender over baseline."
    ),
    "size": (
        "Bytes of a whole bundle with fresh weights and 1024 labels (in records of older versions the model card too, "
        "some 2 kB). **ratio**: four bytes for each parameter of the float model, over these bytes."
    ),
    "streaming": (
        "A chunk in sherpa-onnx, from its samples to its labels; blank is certain, and a label would add one call of "
        "the decoder. The first label: the wait for its samples, then the first chunk. **ratio** to its audio: over "
        "the time that the chunk lasts, or that the wait takes."
    ),
    "together": (
        "Training time of one run for several precisions, against the sum of a run for each. **ratio**: contender over "
        "baseline."
    ),
    "train_step": (
        "Time of one step of training, forward, backward and optimizer: four utterances of ten seconds with forty "
        "labels of 1024, with the fused loss (in older records `loss=rnnt_fused`) or torchaudio's. **ratio**: "
        "contender over baseline, of CPU time; on several threads, of wall time."
    ),
}
_FOR_A_GPU_TOO = ("gemm", "loss", "train_step")
_MEAN = "mean of"  # part of the name of a case that summarises others


_TITLE = """\
# Benchmarks

Made by `make results` from `results/bench.jsonl`. Speed and size are ratios against what you would use instead, taken \
in one run on one machine; error rates are in [RESULTS.md](RESULTS.md).
"""


def render(measurements: Sequence[Measurement]) -> str:
    """A section for each benchmark, in the order of the file; only the last of equal measurements is shown.

    Empty without measurements.
    """
    benches: dict[str, list[Measurement]] = {}
    for found in measurements:
        benches.setdefault(found.bench, []).append(found)
    if not benches:
        return ""
    return "\n".join([_TITLE, *(_section(bench, own) for bench, own in benches.items())])


def _section(bench: str, measurements: Sequence[Measurement]) -> str:
    last = {(found.case, found.contender, found.baseline): found for found in measurements}
    origins = dict.fromkeys(f"- {escaped(found.hardware)}; {code(found.command)}" for found in last.values())
    parts = [f"## {escaped(bench)}\n", *([f"{_EXPLAINED[bench]}\n"] if bench in _EXPLAINED else [])]
    if bench in _FOR_A_GPU_TOO and not any(case.endswith("GPU") for case, *_ in last):
        parts.append("On a GPU: not measured.\n")
    return "\n".join([*parts, _table(list(last.values())), *origins, ""])


def _table(measurements: Sequence[Measurement]) -> str:
    """A row for each case and contender, a column of ratios for each baseline; if there are means, only those."""
    shown = [found for found in measurements if _MEAN in found.case] or list(measurements)
    rows: dict[tuple[str, str], dict[str, Measurement]] = {}
    for found in shown:
        rows.setdefault((found.case, found.contender), {})[found.baseline] = found
    baselines = list(dict.fromkeys(found.baseline for found in shown))
    figures, *of = cells([next(iter(row.values())) for row in rows.values()])
    columns = [number for number, name in enumerate(figures) if name not in ("case", "contender", "wall ms", "ratio")]
    header = ["case", "contender", *(figures[number] for number in columns), *(f"ratio to {one}" for one in baselines)]
    lines = []
    for (name, row), values in zip(rows.items(), of, strict=True):
        ratios = [f"{row[one].ratio:.2f}" if one in row else "" for one in baselines]
        lines.append([*name, *(values[number] for number in columns), *ratios])
    return markdown(header, without_repeats(lines))

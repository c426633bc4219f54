"""A record as evaluation writes it."""

from nibble.provenance import REVISION
from nibble.runs.method import Method
from nibble.runs.records import Record

RECORD = Record(
    experiment="digits",
    corpus="digits",
    part="dev-digits",
    model="conformer_xs",
    parameters=1000,
    quant="int4",
    method=Method.qat,
    seed=1,
    wer=0.25,
    substitutions=1,
    deletions=0,
    insertions=0,
    reference_words=4,
    wer_ci95=(0.0, 0.5),
    utterance_errors=[("a", 1, 2), ("b", 0, 2)],
    bundle_bytes=500,
    float32_bytes=4000,
    ratio=8.0,
    rtf=0.01,
    peak_bytes=2**30,
    threads=2,
    backend="native greedy",
    hardware="a CPU, 2 cores",
    commit="0" * 40,
    command="python evaluate.py",
    config_hash="abc",
    revision=REVISION,
)

"""Compares the size of each model's bundle, all files counted, with its parameters in float32."""

import tempfile
from pathlib import Path

import torch

from nibble import provenance
from nibble.bench.fresh import fresh_model, fresh_tokenizer
from nibble.bench.records import Measurement
from nibble.data.tokenizer import Tokenizer
from nibble.progress import track
from nibble.runs.bundle import unwritten_bytes
from nibble.runs.loaded import float_parameters
from nibble.runs.tensors import stored_of

MODELS = ("conformer_xs", "conformer_s", "conformer_m", "conformer_l")
PRECISIONS = ("int4", "int4_24")


def measure(models: tuple[str, ...] = MODELS, precisions: tuple[str, ...] = PRECISIONS) -> list[Measurement]:
    """The size of the bundle of each model at each precision."""
    cases = [(model, precision) for model in models for precision in precisions]
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = fresh_tokenizer(Path(temporary))
        return [
            _measure(model, precision, tokenizer) for model, precision in track(cases, "packing weights", len(cases))
        ]


def _measure(model: str, precision: str, tokenizer: Tokenizer) -> Measurement:
    loaded = fresh_model(model, precision, tokenizer)
    size_bytes = unwritten_bytes(loaded, stored_of(loaded))
    return Measurement(
        bench="size",
        case=model,
        contender=precision,
        baseline="float32",
        ratio=4 * float_parameters(loaded.config, tokenizer.size) / size_bytes,
        median_ms=None,
        threads=torch.get_num_threads(),
        **provenance.here(),
        bytes=size_bytes,
    )

"""How many times smaller than its float32 parameters the bundle of each model is, all files counted."""

import tempfile
from pathlib import Path

import torch

from nibble import provenance
from nibble.bench.fresh import fresh_model, fresh_tokenizer
from nibble.bench.records import Measurement
from nibble.data.tokenizer import Tokenizer
from nibble.progress import track
from nibble.runs.bundle import export_bundle
from nibble.runs.loaded import float_parameters

MODELS = ("conformer_xs", "conformer_s", "conformer_m", "conformer_l")
PRECISIONS = ("int4", "int4_24")


def measure(models: tuple[str, ...] = MODELS, precisions: tuple[str, ...] = PRECISIONS) -> list[Measurement]:
    """The size of the bundle of each model at each precision."""
    cases = [(model, precision) for model in models for precision in precisions]
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = fresh_tokenizer(Path(temporary))
        return [
            _measure(model, precision, tokenizer, Path(temporary) / "bundle")
            for model, precision in track(cases, "writing bundles", len(cases))
        ]


def _measure(model: str, precision: str, tokenizer: Tokenizer, folder: Path) -> Measurement:
    loaded = fresh_model(model, precision, tokenizer)
    size_bytes = export_bundle(loaded, folder)
    return Measurement(
        bench="size",
        case=model,
        contender=precision,
        baseline="float32",
        ratio=4 * float_parameters(loaded.config, tokenizer.size) / size_bytes,
        median_ms=None,
        threads=torch.get_num_threads(),
        hardware=provenance.hardware(),
        commit=provenance.commit(),
        command=provenance.command(),
        bytes=size_bytes,
    )

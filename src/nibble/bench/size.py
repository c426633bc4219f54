"""Compares the size of each model's bundle, all files counted, with its parameters in float32.

With checkpoint=RUN it measures what one run has trained: each of its sizes at each of its precisions.
"""

import tempfile
from pathlib import Path

import torch

from nibble import provenance
from nibble.bench.fresh import fresh_model, fresh_tokenizer
from nibble.bench.records import Measurement
from nibble.data.tokenizer import Tokenizer
from nibble.progress import track
from nibble.quant.spec import QuantConfig
from nibble.runs.bundle import unwritten_bytes
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import Loaded, float_parameters
from nibble.runs.method import Method
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


def measure_run(checkpoint: Path) -> list[Measurement]:
    """The size of the bundle of each system in a checkpoint: of each size at each precision that it was trained at.

    Raises:
        UserError: there is no model.
    """
    whole = load_checkpoint(checkpoint)
    sizes = [None, *whole.sizes]
    found = []
    for size in track(sizes, "packing weights", len(sizes)):
        loaded = whole if size is None else load_checkpoint(checkpoint, size)
        trained = [QuantConfig(precision.value) for precision in loaded.config.schedule.together]
        systems = (quantize(loaded, quant) for quant in trained) if loaded.method is Method.shared else [loaded]
        found += [_measured(one, one.config.model.name) for one in systems]
    return found


def _measure(model: str, precision: str, tokenizer: Tokenizer) -> Measurement:
    return _measured(fresh_model(model, precision, tokenizer), model)


def _measured(loaded: Loaded, model: str) -> Measurement:
    size_bytes = unwritten_bytes(loaded, stored_of(loaded))
    return Measurement(
        bench="size",
        case=model,
        contender=loaded.quant,
        baseline="float32",
        ratio=4 * float_parameters(loaded.config, loaded.tokenizer.size) / size_bytes,
        median_ms=None,
        threads=torch.get_num_threads(),
        **provenance.here(),
        bytes=size_bytes,
    )

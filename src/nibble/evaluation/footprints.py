"""Memory and load time of what is evaluated, each in a process of its own on one thread, on the CPU."""

from functools import partial
from pathlib import Path

from nibble.evaluation.options import Backend
from nibble.inference.footprint import Load, checkpoint, footprint, onnx_folder, sherpa_folder
from nibble.memory import Footprint
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.transducer import encoder_outline
from nibble.packages import need
from nibble.quant.spec import QuantConfig
from nibble.runs.exported import Exported
from nibble.terminal import Console


def checkpoint_footprint(path: Path, quant: QuantConfig | None, size: str | None = None) -> Footprint:
    """Of a checkpoint or a bundle in torch, quantized without training if `quant` is given."""
    modules = ("nibble.inference.fused", "nibble.inference.transcription", "nibble.runs.checkpoint")
    return _measured(partial(checkpoint, path, quant, size), *modules)


def export_footprint(exported: Exported, backend: Backend) -> Footprint:
    """Of an exported folder, in ONNX Runtime or sherpa-onnx.

    Raises:
        UserError: the package that runs it is not installed.
    """
    config = exported.config
    if backend is Backend.onnx:
        need("onnxruntime", "backend=onnx")
        load: Load = partial(onnx_folder, exported.path, exported.tokenizer.size, config.features)
        return _measured(load, "nibble.inference.onnx_transducer", "nibble.model.decoding")
    need("sherpa_onnx", "backend=sherpa")
    streams = isinstance(encoder_outline(config.model, config.features), StreamingEncoder)
    return _measured(partial(sherpa_folder, exported.path, streams), "sherpa_onnx")


def _measured(load: Load, *modules: str) -> Footprint:
    with Console(stderr=True).status("measuring memory"):
        return footprint(load, *modules)

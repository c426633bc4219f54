"""Opens and runs ONNX files in ONNX Runtime, with errors that say what to do."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from torch import Tensor

from nibble.errors import UserError
from nibble.memory import give_back

AGAIN = "export it again: python -m nibble.export checkpoint=RUN"


def session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A file, or its contents, as a session on the CPU."""
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    given = model if isinstance(model, bytes) else str(model)
    try:
        # Without fallback, it does not print about a second attempt.
        loaded = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # its own kinds, of which it has a dozen
        name = model if isinstance(model, Path) else "a graph"
        raise UserError(f"ONNX Runtime cannot load {name}: {_first_line(error)}; {AGAIN}") from error
    give_back()
    return loaded


def metadata(graph: onnxruntime.InferenceSession) -> dict[str, str]:
    """The metadata of a graph that sherpa-onnx reads."""
    try:
        return dict(graph.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise UserError(f"the metadata of an ONNX file is no text: {error}; {AGAIN}") from error


def number(said: Mapping[str, str], name: str) -> int:
    """A size from the metadata that sherpa-onnx reads."""
    if not re.fullmatch(r"[1-9]\d{0,5}", said.get(name, "")):
        raise UserError(f"an ONNX file has {name}={said.get(name)!r:.60} in its metadata; {AGAIN}")
    return int(said[name])


def run(graph: onnxruntime.InferenceSession, feed: dict[str, Any]) -> list[Any]:
    """The outputs of a graph.

    Raises:
        UserError: it does not take these inputs, as the graphs of this project do.
    """
    try:
        return list(graph.run(None, feed))
    except Exception as error:  # as above
        raise UserError(f"ONNX Runtime cannot run an ONNX file: {_first_line(error)}; {AGAIN}") from error


def checked_logits(logits: Tensor, labels: int, shape: tuple[int, ...]) -> Tensor:
    """What a joiner gave.

    Raises:
        UserError: it is not of this shape, for that many labels.
    """
    if logits.shape != shape:
        raise UserError(f"joiner.onnx gives {tuple(logits.shape)} for {labels} labels of the tokenizer; {AGAIN}")
    return logits


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def checked(encoded: Tensor, encoded_lengths: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """What an encoder gave for features (B, T, F): frames (B, T', J) and lengths (B,).

    Raises:
        UserError: they are of other shapes.
    """
    whole = encoded.dim() == 3 and len(encoded) == len(features) and encoded_lengths.shape == features.shape[:1]
    if not whole or ((encoded_lengths < 0) | (encoded_lengths > encoded.size(1))).any():
        raise UserError(
            f"encoder.onnx gives {tuple(encoded.shape)} with lengths {encoded_lengths.tolist()} for features "
            f"{tuple(features.shape)}; {AGAIN}"
        )
    return encoded, encoded_lengths

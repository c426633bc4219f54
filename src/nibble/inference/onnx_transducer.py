"""Runs an exported folder in ONNX Runtime, for the searches of this project."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from nibble.errors import UserError
from nibble.memory import give_back
from nibble.model.chunks import Chunks
from nibble.model.searchable import LabelState

_AGAIN = "export it again: python -m nibble.export checkpoint=RUN"


class OnnxTransducer:
    """Encoder, predictor and joiner of an exported folder; a `Searchable`.

    The joiner's projections are inside encoder.onnx and decoder.onnx. The predictor's state is the last labels, as
    sherpa-onnx keeps them.

    Args:
        folder: written by `python -m nibble.export` (`nibble.runs.exported`).
        threads: how many one product may use.
        labels: V, of the tokenizer.

    Raises:
        UserError: a file is not what `python -m nibble.export` writes.
    """

    def __init__(self, folder: Path, threads: int, labels: int) -> None:
        encoder = session(folder / "encoder.onnx", threads)
        streams = "decode_chunk_len" in _metadata(encoder)
        self._encode = (_StreamingEncoder if streams else _Encoder)(encoder)
        self._decoder = session(folder / "decoder.onnx", threads)
        self._context = _number(_metadata(self._decoder), "context_size")
        self._joiner = session(folder / "joiner.onnx", threads)
        self._labels = labels

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> projected (B, T', J), (B,)."""
        encoded, encoded_lengths = self._encode(features, lengths)
        whole = encoded.dim() == 3 and len(encoded) == len(features) and encoded_lengths.shape == lengths.shape
        if not whole or ((encoded_lengths < 0) | (encoded_lengths > encoded.size(1))).any():
            raise UserError(
                f"encoder.onnx gives {tuple(encoded.shape)} with lengths {encoded_lengths.tolist()} for features "
                f"{tuple(features.shape)}; {_AGAIN}"
            )
        return encoded, encoded_lengths

    def project(self, encoded: Tensor) -> Tensor:
        """encoded (B, T', J), unchanged: encoder.onnx has projected it."""
        return encoded

    def start_labels(self, rows: int, device: torch.device) -> LabelState:
        """As `Searchable`. What is remembered are the last labels (rows, context); -1 stands before the first."""
        before = torch.full((rows, self._context), -1, device=device)
        return self.append_label(torch.zeros(rows, dtype=torch.long), LabelState(torch.empty(0), (before,)))

    def append_label(self, label: Tensor, state: LabelState) -> LabelState:
        """As `Searchable`."""
        labels = torch.cat((state.memory[0][:, 1:], label.unsqueeze(1)), dim=1)
        predicted = torch.from_numpy(_run(self._decoder, {"y": labels.numpy()})[0])
        return LabelState(predicted, (labels,))

    def label_logits(self, frame: Tensor, state: LabelState) -> Tensor:
        """As `Searchable`."""
        predicted = state.predicted
        # With pairs of labels, the decoder gives labels beside its projection, and the joiner's last output is ours.
        if predicted.dim() != 2 or predicted.size(-1) < frame.size(-1):
            raise UserError(f"decoder.onnx gives {tuple(predicted.shape)} beside {tuple(frame.shape)}; {_AGAIN}")
        frame = frame.expand(len(predicted), -1)
        *_, logits = _run(self._joiner, {"encoder_out": frame.numpy(), "decoder_out": predicted.numpy()})
        if logits.shape != (len(predicted), self._labels):
            raise UserError(f"joiner.onnx gives {logits.shape} for {self._labels} labels of the tokenizer; {_AGAIN}")
        return torch.from_numpy(logits)


class _Encoder:
    def __init__(self, encoder: onnxruntime.InferenceSession) -> None:
        self._encoder = encoder

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        encoded, encoded_lengths = _run(self._encoder, {"x": features.numpy(), "x_lens": lengths.numpy()})
        return torch.from_numpy(encoded), torch.from_numpy(encoded_lengths)


class _StreamingEncoder:
    """Chunk by chunk, as sherpa-onnx does it: its caches are zeros at first."""

    def __init__(self, encoder: onnxruntime.InferenceSession) -> None:
        self._encoder = encoder
        said = _metadata(encoder)
        layers, left, kernel, width = (
            _number(said, name) for name in ("num_encoder_layers", "left_context", "cnn_module_kernel", "encoder_dim")
        )
        self._shift, factor, heard = (_number(said, name) for name in ("decode_chunk_len", "subsampling_factor", "T"))
        self._chunks = Chunks(max(1, self._shift // factor), factor, max(0, heard - self._shift))
        self._caches = (layers, left, width), (layers, kernel - 1, width)

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        whole = self._chunks.whole(features, lengths)
        attention, convolution = (
            np.zeros((layers, frames, len(whole), width), np.float32) for layers, frames, width in self._caches
        )
        encoded = []
        for number, x in enumerate(self._chunks.rows(whole).unflatten(0, (len(whole), -1)).unbind(1)):
            processed = np.full(len(whole), number * self._shift)
            feed = {"x": x.numpy(), "cached_attn": attention, "cached_conv": convolution, "processed_lens": processed}
            out, attention, convolution = _run(self._encoder, feed)
            encoded.append(torch.from_numpy(out))
        return torch.cat(encoded, dim=1), self._chunks.count(lengths) * encoded[0].size(1)


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
        raise UserError(f"ONNX Runtime cannot load {name}: {_first_line(error)}; {_AGAIN}") from error
    give_back()
    return loaded


def _metadata(graph: onnxruntime.InferenceSession) -> dict[str, str]:
    """The metadata of a graph that sherpa-onnx reads."""
    try:
        return dict(graph.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise UserError(f"the metadata of an ONNX file is no text: {error}; {_AGAIN}") from error


def _number(said: Mapping[str, str], name: str) -> int:
    """A size from the metadata that sherpa-onnx reads."""
    if not re.fullmatch(r"[1-9]\d{0,5}", said.get(name, "")):
        raise UserError(f"an ONNX file has {name}={said.get(name)!r:.60} in its metadata; {_AGAIN}")
    return int(said[name])


def _run(graph: onnxruntime.InferenceSession, feed: dict[str, Any]) -> list[Any]:
    """The outputs of a graph.

    Raises:
        UserError: it does not take these inputs, as the graphs of this project do.
    """
    try:
        return list(graph.run(None, feed))
    except Exception as error:  # as above
        raise UserError(f"ONNX Runtime cannot run an ONNX file: {_first_line(error)}; {_AGAIN}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

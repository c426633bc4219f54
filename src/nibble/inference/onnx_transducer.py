"""An exported folder in ONNX Runtime, called as a `Transducer` is in a search."""

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
from nibble.model.predictor import State

_AGAIN = "export it again: python -m nibble.export checkpoint=RUN"


class OnnxTransducer:
    """Encoder, predictor and joiner of an exported folder, in the place of a `Transducer`.

    Encoder and decoder files give what the joiner's projections of both would, so here those change nothing. The state
    of a predictor is its last labels, as sherpa-onnx keeps them.

    Args:
        folder: of `nibble.runs.exported`.
        threads: of each product.
        labels: V, of the tokenizer.

    Raises:
        UserError: a file is not what `python -m nibble.export` writes.
    """

    def __init__(self, folder: Path, threads: int, labels: int) -> None:
        encoder = session(folder / "encoder.onnx", threads)
        streams = "decode_chunk_len" in _metadata(encoder)
        self._encode = (_StreamingEncoder if streams else _Encoder)(encoder)
        self.predictor = _Predictor(session(folder / "decoder.onnx", threads))
        self.joiner = _Joiner(session(folder / "joiner.onnx", threads), labels)

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


class _Predictor:
    def __init__(self, decoder: onnxruntime.InferenceSession) -> None:
        self._decoder = decoder
        self._context = _number(_metadata(decoder), "context_size")

    def start(self, batch: int, device: torch.device) -> State:
        return (torch.full((batch, self._context), -1, device=device),)

    def step(self, label: Tensor, state: State) -> tuple[Tensor, State]:
        labels = torch.cat((state[0][:, 1:], label.unsqueeze(1)), dim=1)
        return torch.from_numpy(_run(self._decoder, {"y": labels.numpy()})[0]), (labels,)


class _Joiner:
    def __init__(self, joiner: onnxruntime.InferenceSession, labels: int) -> None:
        self._joiner = joiner
        self._labels = labels

    def project_encoder(self, encoded: Tensor) -> Tensor:
        return encoded

    def project_predictor(self, predicted: Tensor) -> Tensor:
        return predicted

    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        # With pairs of labels, the decoder gives labels beside its projection, and the joiner's last output is ours.
        if predicted.dim() != 2 or predicted.size(-1) < encoded.size(-1):
            raise UserError(f"decoder.onnx gives {tuple(predicted.shape)} beside {tuple(encoded.shape)}; {_AGAIN}")
        rows = torch.broadcast_shapes(encoded.shape[:-1], predicted.shape[:-1])
        encoded, predicted = (part.expand(*rows, -1) for part in (encoded, predicted))
        *_, logit = _run(self._joiner, {"encoder_out": encoded.numpy(), "decoder_out": predicted.numpy()})
        if logit.shape != (*encoded.shape[:-1], self._labels):
            raise UserError(f"joiner.onnx gives {logit.shape} for {self._labels} labels of the tokenizer; {_AGAIN}")
        return torch.from_numpy(logit)


def session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A file, or what would be in it, ready to run on the CPU."""
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
    """What sherpa-onnx reads of a graph beside its tensors."""
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

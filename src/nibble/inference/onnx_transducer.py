"""Runs an exported folder in ONNX Runtime, for the searches of this project."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from nibble.errors import UserError
from nibble.inference.onnx_nemo import NEMO_MODEL, OnnxNemoTransducer
from nibble.inference.onnx_session import AGAIN, checked, checked_logits, metadata, number, run, session
from nibble.model.chunks import Chunks
from nibble.model.searchable import LabelState, Searchable


def onnx_transducer(folder: Path, threads: int, labels: int) -> Searchable:
    """An exported folder, ready for a search: as an icefall transducer, or as NeMo's.

    Args:
        folder: written by `python -m nibble.export` (`nibble.runs.exported`).
        threads: how many one product may use.
        labels: V, of the tokenizer.

    Raises:
        UserError: a file is not what `python -m nibble.export` writes.
    """
    graphs = [session(folder / f"{name}.onnx", threads) for name in ("encoder", "decoder", "joiner")]
    if metadata(graphs[0]).get("model_type") == NEMO_MODEL:
        return OnnxNemoTransducer(graphs, labels)
    return OnnxTransducer(graphs, labels)


class OnnxTransducer:
    """Encoder, predictor and joiner of an exported folder; a `Searchable`.

    The joiner's projections are inside encoder.onnx and decoder.onnx. The predictor's state is the last labels, as
    sherpa-onnx keeps them.

    Args:
        graphs: the encoder, the decoder and the joiner, opened.
        labels: V, of the tokenizer.

    Raises:
        UserError: a file is not what `python -m nibble.export` writes.
    """

    def __init__(self, graphs: list[onnxruntime.InferenceSession], labels: int) -> None:
        encoder, self._decoder, self._joiner = graphs
        streams = "decode_chunk_len" in metadata(encoder)
        self._encode = (_StreamingEncoder if streams else _Encoder)(encoder)
        self._context = number(metadata(self._decoder), "context_size")
        self._labels = labels

    @property
    def durations(self) -> int:
        """As `Searchable`; an icefall transducer has none."""
        return 0

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> projected (B, T', J), (B,)."""
        return checked(*self._encode(features, lengths), features)

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
        predicted = torch.from_numpy(run(self._decoder, {"y": labels.numpy()})[0])
        return LabelState(predicted, (labels,))

    def label_logits(self, frame: Tensor, state: LabelState) -> Tensor:
        """As `Searchable`."""
        predicted = state.predicted
        # With pairs of labels, the decoder gives labels beside its projection, and the joiner's last output is ours.
        if predicted.dim() != 2 or predicted.size(-1) < frame.size(-1):
            raise UserError(f"decoder.onnx gives {tuple(predicted.shape)} beside {tuple(frame.shape)}; {AGAIN}")
        frame = frame.expand(len(predicted), -1)
        *_, logits = run(self._joiner, {"encoder_out": frame.numpy(), "decoder_out": predicted.numpy()})
        return checked_logits(torch.from_numpy(logits), self._labels, (len(predicted), self._labels))


class _Encoder:
    def __init__(self, encoder: onnxruntime.InferenceSession) -> None:
        self._encoder = encoder

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        encoded, encoded_lengths = run(self._encoder, {"x": features.numpy(), "x_lens": lengths.numpy()})
        return torch.from_numpy(encoded), torch.from_numpy(encoded_lengths)


class _StreamingEncoder:
    """Chunk by chunk, as sherpa-onnx does it: its caches are zeros at first."""

    def __init__(self, encoder: onnxruntime.InferenceSession) -> None:
        self._encoder = encoder
        said = metadata(encoder)
        layers, left, kernel, width = (
            number(said, name) for name in ("num_encoder_layers", "left_context", "cnn_module_kernel", "encoder_dim")
        )
        self._shift, factor, heard = (number(said, name) for name in ("decode_chunk_len", "subsampling_factor", "T"))
        self._chunks = Chunks(max(1, self._shift // factor), factor, max(0, heard - self._shift))
        self._caches = (layers, left, width), (layers, kernel - 1, width)

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        whole = self._chunks.whole(features, lengths)
        attention, convolution = (
            np.zeros((layers, frames, len(whole), width), np.float32) for layers, frames, width in self._caches
        )
        encoded = []
        for chunk, x in enumerate(self._chunks.rows(whole).unflatten(0, (len(whole), -1)).unbind(1)):
            processed = np.full(len(whole), chunk * self._shift)
            feed = {"x": x.numpy(), "cached_attn": attention, "cached_conv": convolution, "processed_lens": processed}
            out, attention, convolution = run(self._encoder, feed)
            encoded.append(torch.from_numpy(out))
        return torch.cat(encoded, dim=1), self._chunks.count(lengths) * encoded[0].size(1)

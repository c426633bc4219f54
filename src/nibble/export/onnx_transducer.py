"""An exported folder in ONNX Runtime, called as a `Transducer` is in a search."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from nibble.model.chunks import as_rows, chunk_count, whole_chunks
from nibble.model.predictor import State
from nibble.model.subsampling import FACTOR


class OnnxTransducer:
    """Encoder, predictor and joiner of an exported folder, in the place of a `Transducer`.

    Encoder and decoder files give what the joiner's projections of both would, so here those change nothing. The state
    of a predictor is its last labels, as sherpa-onnx keeps them.

    Args:
        folder: of `nibble.export.sherpa`.
        threads: of each product.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        encoder = session(folder / "encoder.onnx", threads)
        streams = "decode_chunk_len" in encoder.get_modelmeta().custom_metadata_map
        self._encode = (_StreamingEncoder if streams else _Encoder)(encoder)
        self.predictor = _Predictor(session(folder / "decoder.onnx", threads))
        self.joiner = _Joiner(session(folder / "joiner.onnx", threads))

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> projected (B, T', J), (B,)."""
        return self._encode(features, lengths)


class _Encoder:
    def __init__(self, encoder: onnxruntime.InferenceSession) -> None:
        self._encoder = encoder

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        encoded, encoded_lengths = self._encoder.run(None, {"x": features.numpy(), "x_lens": lengths.numpy()})
        return torch.from_numpy(encoded), torch.from_numpy(encoded_lengths)


class _StreamingEncoder:
    """Chunk by chunk, as sherpa-onnx does it: its caches are zeros at first."""

    def __init__(self, encoder: onnxruntime.InferenceSession) -> None:
        self._encoder = encoder
        said = encoder.get_modelmeta().custom_metadata_map
        layers, left, kernel, width, self._shift = (
            int(said[name])
            for name in ("num_encoder_layers", "left_context", "cnn_module_kernel", "encoder_dim", "decode_chunk_len")
        )
        self._caches = (layers, left, width), (layers, kernel - 1, width)

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        chunk = self._shift // FACTOR
        whole = whole_chunks(features, lengths, chunk)
        attention, convolution = (
            np.zeros((layers, frames, len(whole), width), np.float32) for layers, frames, width in self._caches
        )
        encoded = []
        for number, x in enumerate(as_rows(whole, chunk).unflatten(0, (len(whole), -1)).unbind(1)):
            processed = np.full(len(whole), number * self._shift)
            feed = {"x": x.numpy(), "cached_attn": attention, "cached_conv": convolution, "processed_lens": processed}
            out, attention, convolution = self._encoder.run(None, feed)
            encoded.append(torch.from_numpy(out))
        return torch.cat(encoded, dim=1), chunk_count(lengths, chunk) * encoded[0].size(1)


class _Predictor:
    def __init__(self, decoder: onnxruntime.InferenceSession) -> None:
        self._decoder = decoder
        self._context = int(decoder.get_modelmeta().custom_metadata_map["context_size"])

    def start(self, batch: int, device: torch.device) -> State:
        return (torch.full((batch, self._context), -1, device=device),)

    def step(self, label: Tensor, state: State) -> tuple[Tensor, State]:
        labels = torch.cat((state[0][:, 1:], label.unsqueeze(1)), dim=1)
        return torch.from_numpy(self._decoder.run(None, {"y": labels.numpy()})[0]), (labels,)


class _Joiner:
    def __init__(self, joiner: onnxruntime.InferenceSession) -> None:
        self._joiner = joiner

    def project_encoder(self, encoded: Tensor) -> Tensor:
        return encoded

    def project_predictor(self, predicted: Tensor) -> Tensor:
        return predicted

    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        encoded, predicted = torch.broadcast_tensors(encoded, predicted)
        (logit,) = self._joiner.run(None, {"encoder_out": encoded.numpy(), "decoder_out": predicted.numpy()})
        return torch.from_numpy(logit)


def session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A file, or what would be in it, ready to run on the CPU."""
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])

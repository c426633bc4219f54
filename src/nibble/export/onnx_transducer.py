"""An exported folder in ONNX Runtime, called as a `Transducer` is in a search."""

from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from nibble.model.predictor import State


class OnnxTransducer:
    """Encoder, predictor and joiner of an exported folder, in the place of a `Transducer`.

    Encoder and decoder files give what the joiner's projections of both would, so here those change nothing. The state
    of a predictor is its last labels, as sherpa-onnx keeps them.

    Args:
        folder: of `nibble.export.sherpa`.
        threads: of each product.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._encoder = session(folder / "encoder.onnx", threads)
        self.predictor = _Predictor(session(folder / "decoder.onnx", threads))
        self.joiner = _Joiner(session(folder / "joiner.onnx", threads))

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> projected (B, T', J), (B,)."""
        encoded, encoded_lengths = self._encoder.run(None, {"x": features.numpy(), "x_lens": lengths.numpy()})
        return torch.from_numpy(encoded), torch.from_numpy(encoded_lengths)


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

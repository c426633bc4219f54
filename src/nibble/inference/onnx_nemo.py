"""Runs a folder that was exported as a NeMo transducer in ONNX Runtime, for the searches of this project."""

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from nibble.conventions import BLANK
from nibble.errors import UserError
from nibble.inference.onnx_session import AGAIN, checked, checked_logits, metadata, number, run
from nibble.model.searchable import LabelState

NEMO_MODEL = "EncDecRNNTBPEModel"  # a NeMo class, by which sherpa-onnx knows such a folder


class OnnxNemoTransducer:
    """Encoder, predictor and joiner of `nibble.export.sherpa.nemo_graphs`; a `Searchable`.

    Args:
        graphs: the encoder, the decoder and the joiner, opened.
        labels: V, of the tokenizer.

    Raises:
        UserError: a file is not what `python -m nibble.export` writes.
    """

    def __init__(self, graphs: list[onnxruntime.InferenceSession], labels: int) -> None:
        self._encoder, self._decoder, self._joiner = graphs
        said = metadata(self._encoder)
        self._state = number(said, "pred_rnn_layers"), number(said, "pred_hidden")
        self._labels = labels
        found = self._joiner.get_outputs()[0].shape[-1]  # labels, and durations behind them
        if not isinstance(found, int) or found < labels:
            raise UserError(f"joiner.onnx gives {found} logits for {labels} labels of the tokenizer; {AGAIN}")
        self._logits = found

    @property
    def durations(self) -> int:
        """As `Searchable`."""
        return self._logits - self._labels

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> projected (B, T', J), (B,)."""
        feed = {"audio_signal": np.ascontiguousarray(features.transpose(1, 2).numpy()), "length": lengths.numpy()}
        encoded, counts = (torch.from_numpy(found) for found in run(self._encoder, feed))
        return checked(encoded.transpose(1, 2).contiguous(), counts, features)

    def project(self, encoded: Tensor) -> Tensor:
        """encoded (B, T', J), unchanged: encoder.onnx has projected it."""
        return encoded

    def start_labels(self, rows: int, device: torch.device) -> LabelState:
        """As `Searchable`. What is remembered are the LSTM's states, (rows, L, P) each."""
        layers, width = self._state
        zeros = torch.zeros(rows, layers, width, device=device)
        return self.append_label(torch.full((rows,), BLANK), LabelState(torch.empty(0), (zeros, zeros)))

    def append_label(self, label: Tensor, state: LabelState) -> LabelState:
        """As `Searchable`."""
        targets = ((label - 1) % self._labels).int().unsqueeze(1)  # blank is NeMo's last label
        states, cells = (np.ascontiguousarray(part.transpose(0, 1).numpy()) for part in state.memory)
        feed = {
            "targets": targets.numpy(),
            "target_length": np.ones(len(label), np.int32),
            "states": states,
            "cells": cells,
        }
        out, _, *after = (torch.from_numpy(found) for found in run(self._decoder, feed))
        return LabelState(out[:, :, 0], tuple(part.transpose(0, 1).contiguous() for part in after))

    def label_logits(self, frame: Tensor, state: LabelState) -> Tensor:
        """As `Searchable`."""
        predicted = state.predicted.contiguous()
        frame = frame.expand(len(predicted), -1).contiguous()
        feed = {"encoder_outputs": frame.unsqueeze(2).numpy(), "decoder_outputs": predicted.unsqueeze(2).numpy()}
        logits = torch.from_numpy(run(self._joiner, feed)[0])
        logits = checked_logits(logits, self._labels, (len(predicted), 1, 1, self._logits))
        labels, durations = logits[:, 0, 0].tensor_split((self._labels,), dim=1)
        return torch.cat((labels.roll(1, 1), durations), dim=1)

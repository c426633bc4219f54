"""Recognisers: a network in torch or ONNX Runtime, with a search for labels, turns a batch of speech into text."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from nibble.data.batch import Batch
from nibble.data.tokenizer import Tokenizer
from nibble.model.decoding import Hypothesis
from nibble.model.searchable import Searchable
from nibble.packages import need
from nibble.quant.finite import checked_at_end

Decoder = Callable[[Searchable, Tensor, Tensor], list[Hypothesis]]


class Recogniser(Protocol):
    """Anything that recognises batches."""

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance."""
        ...


class Network:
    """A network and a search for labels in its output.

    Args:
        model: the network, or an exported folder in ONNX Runtime.
        tokenizer: labels to text.
        decoder: the search.
    """

    def __init__(self, model: Searchable, tokenizer: Tokenizer, decoder: Decoder) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.decoder = decoder

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance."""
        with torch.inference_mode(), checked_at_end():
            hypotheses = self.decoder(self.model, *self.model.encode(batch.features, batch.feature_lengths))
        return [self.tokenizer.decode(hypothesis.ids) for hypothesis in hypotheses]


def onnx_network(folder: Path, tokenizer: Tokenizer, decoder: Decoder, threads: int) -> Network:
    """An exported folder in ONNX Runtime, with a search of this project.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    need("onnxruntime", "backend=onnx")
    from nibble.inference.onnx_transducer import onnx_transducer

    return Network(onnx_transducer(folder, threads, tokenizer.size), tokenizer, decoder)

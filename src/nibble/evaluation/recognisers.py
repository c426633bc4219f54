"""Recognisers: a network in torch or ONNX Runtime, with a search for labels, turns a batch of speech into text."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic

import torch
from torch import Tensor

from nibble.data.batch import Batch
from nibble.data.tokenizer import Tokenizer
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig
from nibble.inference.seams import Heard, Label
from nibble.model.decoding import Hypothesis
from nibble.model.encoder import Encoder
from nibble.model.searchable import Searchable
from nibble.model.transducer import encoder_outline
from nibble.packages import need
from nibble.quant.finite import checked_at_end
from nibble.runs.exported import Exported
from nibble.runs.loaded import Loaded

Decoder = Callable[[Searchable, Tensor, Tensor], list[Hypothesis]]


class Recogniser(ABC, Generic[Label]):
    """Anything that recognises batches."""

    @abstractmethod
    def hear(self, batch: Batch) -> list[Heard[Label]]:
        """The labels of each utterance."""

    @abstractmethod
    def text(self, labels: Sequence[Label]) -> str:
        """What labels say."""

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance."""
        return [self.text(heard.labels) for heard in self.hear(batch)]


class Network(Recogniser[int]):
    """A network and a search for labels in its output.

    Args:
        model: the network, or an exported folder in ONNX Runtime.
        tokenizer: labels to text.
        decoder: the search.
        frame_s: from one encoded frame to the next.
    """

    def __init__(self, model: Searchable, tokenizer: Tokenizer, decoder: Decoder, frame_s: float) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.decoder = decoder
        self.frame_s = frame_s

    def hear(self, batch: Batch) -> list[Heard[int]]:
        """As `Recogniser`."""
        with torch.inference_mode(), checked_at_end():
            hypotheses = self.decoder(self.model, *self.model.encode(batch.features, batch.feature_lengths))
        return [Heard(found.ids, [frame * self.frame_s for frame in found.frames]) for found in hypotheses]

    def text(self, labels: Sequence[int]) -> str:
        """As `Recogniser`."""
        return self.tokenizer.decode(labels)


def torch_network(loaded: Loaded, decoder: Decoder) -> Network:
    """A loaded model, on the device that it is on."""
    return Network(loaded.model, loaded.tokenizer, decoder, _frame_s(loaded.model.encoder, loaded.config.features))


def onnx_network(exported: Exported, decoder: Decoder, threads: int) -> Network:
    """An exported folder in ONNX Runtime, with a search of this project.

    Raises:
        UserError: ONNX Runtime is not installed, or a file of the folder is not what it should be.
    """
    need("onnxruntime", "backend=onnx")
    from nibble.inference.onnx_transducer import onnx_transducer

    tokenizer, config = exported.tokenizer, exported.config
    model = onnx_transducer(exported.path, threads, tokenizer.size)
    return Network(model, tokenizer, decoder, _frame_s(encoder_outline(config.model, config.features), config.features))


def _frame_s(encoder: Encoder, features: FeatureConfig) -> float:
    return encoder.factor * make_features(features).shift_s

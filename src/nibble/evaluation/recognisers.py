"""What turns a batch of speech into text: torch, ONNX Runtime or sherpa-onnx."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from nibble.data.batch import Batch
from nibble.data.tokenizer import WORD_START, Tokenizer
from nibble.export.packages import need
from nibble.features import SAMPLE_RATE
from nibble.model.decoding import Hypothesis
from nibble.model.transducer import Transducer

Decoder = Callable[[Transducer, Tensor, Tensor], list[Hypothesis]]


class Recogniser(Protocol):
    """Anything that recognises batches."""

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance."""
        ...


class Network:
    """A network and a search for labels in its output.

    Args:
        model: a transducer, or what is called as one.
        tokenizer: labels to text.
        decoder: the search.
    """

    def __init__(self, model: Transducer, tokenizer: Tokenizer, decoder: Decoder) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.decoder = decoder

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance."""
        with torch.inference_mode():
            hypotheses = self.decoder(self.model, *self.model.encode(batch.features, batch.feature_lengths))
        return [self.tokenizer.decode(hypothesis.ids) for hypothesis in hypotheses]


def onnx_network(folder: Path, tokenizer: Tokenizer, decoder: Decoder, threads: int) -> Network:
    """An exported folder in ONNX Runtime, with a search of this project.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    need("onnxruntime", "backend=onnx")
    from nibble.export.onnx_transducer import OnnxTransducer

    return Network(cast(Transducer, OnnxTransducer(folder, threads)), tokenizer, decoder)


class Sherpa:
    """sherpa-onnx on an exported folder: from samples to text without anything of this project.

    Args:
        folder: of `nibble.export.sherpa`.
        mel_bins: F.
        beam_width: of its modified beam search; 1: greedy search, which emits at most one label a frame.
        threads: of each product.

    Raises:
        UserError: sherpa-onnx is not installed.
    """

    def __init__(self, folder: Path, mel_bins: int, beam_width: int, threads: int) -> None:
        need("sherpa_onnx", "backend=sherpa")
        import sherpa_onnx

        self.version = str(sherpa_onnx.__version__)
        self._recogniser = sherpa_onnx.OfflineRecognizer.from_transducer(
            *(str(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")),
            tokens=str(folder / "tokens.txt"),
            num_threads=threads,
            sample_rate=SAMPLE_RATE,
            feature_dim=mel_bins,
            decoding_method="greedy_search" if beam_width == 1 else "modified_beam_search",
            max_active_paths=beam_width,
        )

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance; they go through the network one by one."""
        assert batch.samples is not None, "the loader keeps samples"
        texts = []
        for samples in batch.samples:
            stream = self._recogniser.create_stream()
            stream.accept_waveform(SAMPLE_RATE, samples.numpy())
            self._recogniser.decode_stream(stream)
            texts.append("".join(stream.result.tokens).replace(WORD_START, " ").strip())
        return texts

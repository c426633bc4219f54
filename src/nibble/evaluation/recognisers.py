"""What turns a batch of speech into text: torch, ONNX Runtime or sherpa-onnx."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.data.batch import Batch
from nibble.data.tokenizer import WORD_START, Tokenizer
from nibble.features.kaldi import SAMPLE_RATE, SHIFT_SAMPLES, frame_count
from nibble.model.chunks import Chunks
from nibble.model.decoding import Hypothesis, greedy
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.transducer import Transducer, encoder_outline
from nibble.packages import need
from nibble.quant.finite import checked_at_end
from nibble.runs.exported import Exported

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
        with torch.inference_mode(), checked_at_end():
            hypotheses = self.decoder(self.model, *self.model.encode(batch.features, batch.feature_lengths))
        return [self.tokenizer.decode(hypothesis.ids) for hypothesis in hypotheses]


def onnx_network(folder: Path, tokenizer: Tokenizer, decoder: Decoder, threads: int) -> Network:
    """An exported folder in ONNX Runtime, with a search of this project.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    need("onnxruntime", "backend=onnx")
    from nibble.inference.onnx_transducer import OnnxTransducer

    return Network(cast(Transducer, OnnxTransducer(folder, threads, tokenizer.size)), tokenizer, decoder)


class Sherpa:
    """sherpa-onnx on an exported folder: from samples to text without anything of this project.

    Args:
        exported: the folder. A model that streams hears it as it would from a microphone: the utterance, then silence
            until its last chunk is full.
        beam_width: of its modified beam search; 1: greedy search, which emits at most one label a frame.
        threads: of each product.

    Raises:
        UserError: sherpa-onnx or ONNX Runtime is not installed, or a file is not what it should be.
    """

    def __init__(self, exported: Exported, beam_width: int, threads: int) -> None:
        need("sherpa_onnx", "backend=sherpa")
        onnx_network(exported.path, exported.tokenizer, greedy, threads)  # sherpa-onnx ends the process on a bad file
        import sherpa_onnx

        self.version = str(sherpa_onnx.__version__)
        encoder = encoder_outline(exported.config.model, exported.config.features)
        self._chunks = encoder.chunks if isinstance(encoder, StreamingEncoder) else None
        kind = sherpa_onnx.OfflineRecognizer if self._chunks is None else sherpa_onnx.OnlineRecognizer
        self._recogniser = kind.from_transducer(
            **{name: str(exported.path / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")},
            tokens=str(exported.path / "tokens.txt"),
            num_threads=threads,
            sample_rate=SAMPLE_RATE,
            feature_dim=exported.config.features.mel_bins,
            decoding_method="greedy_search" if beam_width == 1 else "modified_beam_search",
            max_active_paths=beam_width,
        )

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance; they go through the network one by one."""
        assert batch.samples is not None, "the loader keeps samples"
        return ["".join(self._tokens(samples)).replace(WORD_START, " ").strip() for samples in batch.samples]

    def _tokens(self, samples: Tensor) -> list[str]:
        """Of one utterance, (samples,)."""
        stream = self._recogniser.create_stream()
        if self._chunks is None:
            stream.accept_waveform(SAMPLE_RATE, samples.numpy())
            self._recogniser.decode_stream(stream)
            return list(stream.result.tokens)
        stream.accept_waveform(SAMPLE_RATE, with_silence(samples, self._chunks).numpy())
        stream.input_finished()
        while self._recogniser.is_ready(stream):
            self._recogniser.decode_stream(stream)
        return list(self._recogniser.tokens(stream))


def with_silence(samples: Tensor, chunks: Chunks) -> Tensor:
    """Samples (samples,) with as much silence after them as sherpa-onnx needs to recognise the last chunk.

    It waits for one frame more than the chunk takes.
    """
    frames = chunks.feature_frames(chunks.count(frame_count(len(samples)))) + 1
    return F.pad(samples, (0, max(0, frames * SHIFT_SAMPLES - len(samples))))

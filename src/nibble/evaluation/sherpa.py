"""sherpa-onnx as a recogniser of batches, loaded from an exported folder."""

import re
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from nibble.conventions import SAMPLE_RATE_HZ, WORD_START
from nibble.data.batch import Batch
from nibble.errors import UserError
from nibble.evaluation.recognisers import Recogniser, onnx_network
from nibble.features.kaldi import SHIFT_SAMPLES, frame_count
from nibble.inference.seams import Heard
from nibble.inference.sherpa_recogniser import sherpa_recogniser
from nibble.model.chunks import Chunks
from nibble.model.decoding import greedy
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.transducer import encoder_outline
from nibble.packages import need
from nibble.runs.exported import INT4_OPSET, Exported


def load_sherpa(exported: Exported, beam_width: int, threads: int) -> Any:
    """sherpa-onnx's recogniser of an exported folder: an OnlineRecognizer if the model streams.

    Args:
        exported: the folder.
        beam_width: of its modified beam search; 1: greedy search, which emits at most one label a frame.
        threads: of each product.

    Raises:
        UserError: sherpa-onnx or ONNX Runtime is not installed, sherpa-onnx is too old for the folder, or a file is not
            what it should be.
    """
    need("sherpa_onnx", "backend=sherpa")
    _check_version(exported)
    onnx_network(exported, greedy, threads)  # sherpa-onnx ends the process on a bad file
    return sherpa_recogniser(
        exported.path,
        _chunks(exported) is not None,
        threads,
        sample_rate=SAMPLE_RATE_HZ,
        feature_dim=exported.config.features.mel_bins,
        decoding_method="greedy_search" if beam_width == 1 else "modified_beam_search",
        max_active_paths=beam_width,
        **({"model_type": exported.sherpa_type} if exported.sherpa_type else {}),
    )


def _check_version(exported: Exported) -> None:
    """Raise `UserError` where the installed sherpa-onnx is too old: it would end the process."""
    import sherpa_onnx

    installed, least = str(sherpa_onnx.__version__), exported.least_sherpa_onnx
    if least is not None and _numbers(installed) < _numbers(least):
        older = ", or export it again with opset=17" if exported.opset == INT4_OPSET else ""
        raise UserError(
            f"{exported.path} needs sherpa-onnx {least} or later, and {installed} is installed; "
            f"pip install -U sherpa-onnx{older}"
        )


def _numbers(version: str) -> list[int]:
    """1.12.20 -> [1, 12, 20]; of 1.12.20+cuda too."""
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3]]


class Sherpa(Recogniser[str]):
    """sherpa-onnx on an exported folder: from samples to text without anything of this project.

    A model that streams hears an utterance as from a microphone: then silence until its last chunk is full.

    Args: those of `load_sherpa`.
    """

    def __init__(self, exported: Exported, beam_width: int, threads: int) -> None:
        self._recogniser = load_sherpa(exported, beam_width, threads)
        self._chunks = _chunks(exported)
        import sherpa_onnx

        self.version = str(sherpa_onnx.__version__)

    def hear(self, batch: Batch) -> list[Heard[str]]:
        """The tokens of each utterance; they go through the network one by one."""
        assert batch.samples is not None, "the loader keeps samples"
        return [self._hear(samples) for samples in batch.samples]

    def text(self, labels: Sequence[str]) -> str:
        """What tokens say."""
        return "".join(labels).replace(WORD_START, " ").strip()

    def _hear(self, samples: Tensor) -> Heard[str]:
        """The tokens that sherpa-onnx finds in one utterance, (samples,)."""
        stream = self._recogniser.create_stream()
        if self._chunks is None:
            stream.accept_waveform(SAMPLE_RATE_HZ, samples.numpy())
            self._recogniser.decode_stream(stream)
            return Heard(list(stream.result.tokens), list(stream.result.timestamps))
        stream.accept_waveform(SAMPLE_RATE_HZ, with_silence(samples, self._chunks).numpy())
        stream.input_finished()
        while self._recogniser.is_ready(stream):
            self._recogniser.decode_stream(stream)
        return Heard(list(self._recogniser.tokens(stream)), list(self._recogniser.timestamps(stream)))


def with_silence(samples: Tensor, chunks: Chunks) -> Tensor:
    """Samples (samples,) with as much silence after them as sherpa-onnx needs to recognise the last chunk.

    It waits for one frame more than the chunk takes.
    """
    frames = chunks.feature_frames(chunks.count(frame_count(len(samples)))) + 1
    return F.pad(samples, (0, max(0, frames * SHIFT_SAMPLES - len(samples))))


def _chunks(exported: Exported) -> Chunks | None:
    """How the encoder of an export streams; None if it takes whole utterances."""
    encoder = encoder_outline(exported.config.model, exported.config.features)
    return encoder.chunks if isinstance(encoder, StreamingEncoder) else None

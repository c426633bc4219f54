"""Recognises batches of speech, and measures errors and time."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.batch import Batch
from nibble.evaluation.result import Transcript
from nibble.evaluation.scoring import score_transcripts
from nibble.evaluation.wer import Score


class Measured(NamedTuple):
    """The transcripts and the speed of a recogniser."""

    score: Score
    transcripts: list[Transcript]
    rtf: float  # time of encoder and search / duration of the audio
    windowed: int = 0  # utterances that were recognised in windows


def measure(recognise: Callable[[Batch], list[str]], batches: Iterable[Batch], device: torch.device) -> Measured:
    """Recognise all utterances of `batches` on a device.

    The real-time factor is the time of encoder and search in one process over the duration of the audio, batched as
    the loader does it. The loader computes log-mel features; their time is not in it.
    """
    transcripts: list[Transcript] = []
    processing_s = audio_s = 0.0
    for batch in batches:
        inputs = batch.to(device)
        started_s = _now_s(device)
        recognised = recognise(inputs)
        processing_s += _now_s(device) - started_s
        audio_s += batch.duration_s if batch.samples is None else sum(map(len, batch.samples)) / SAMPLE_RATE_HZ
        transcripts += map(Transcript, batch.ids, batch.texts, recognised)
    return Measured(score_transcripts(transcripts), transcripts, processing_s / audio_s if audio_s else 0.0)


def _now_s(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

"""Puts what was measured into a record."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from nibble import provenance
from nibble.config import plain
from nibble.data.options import Condition
from nibble.evaluation.measuring import Measured
from nibble.evaluation.options import EvaluateConfig, Search
from nibble.evaluation.recognisers import Recogniser
from nibble.evaluation.scoring import Scores
from nibble.evaluation.size import Size
from nibble.memory import Footprint, peak_bytes
from nibble.runs.backend import Inference
from nibble.runs.exported import Exported
from nibble.runs.loaded import Loaded
from nibble.runs.records import Record


@dataclass(frozen=True)
class Subject:
    """A model to evaluate, and what computes it."""

    model: Loaded | Exported
    recognise: Recogniser[Any]
    size: Size
    inference: Inference
    device: torch.device
    hardware: str  # in words, with the kernels in use
    memory: Footprint | None  # None: not measured


@dataclass(frozen=True)
class Task:
    """The speech of one evaluation."""

    corpus: str
    parts: list[str]
    condition: Condition


def make_record(subject: Subject, options: EvaluateConfig, task: Task, measured: Measured, scores: Scores) -> Record:
    """The record of one evaluation.

    Args:
        subject: what was evaluated.
        options: of the command.
        task: which speech, and how it was changed.
        measured: texts and time.
        scores: errors.
    """
    model, size, score = subject.model, subject.size, scores.main
    how: dict[str, Any] = {
        "parts": task.parts,
        "decoding": options.decoding.value,
        "max_utterances": options.max_utterances,
    }
    if options.decoding is Search.beam:
        how["beam_width"] = options.beam_width
    if options.ignored:
        how["ignored"] = options.ignored
    if task.condition is not Condition.unchanged:
        how["condition"] = task.condition.value
    if measured.windowed:
        how["windowed"] = measured.windowed
    texts = {one.id: one.hypothesis for one in measured.transcripts}
    return Record(
        experiment=model.config.name,
        corpus=task.corpus,
        part="+".join(task.parts),
        model=model.config.model.name,
        parameters=size.parameters,
        quant=model.quant,
        method=model.method,
        seed=model.config.seed,
        wer=score.wer,
        substitutions=score.substitutions,
        deletions=score.deletions,
        insertions=score.insertions,
        reference_words=score.reference_words,
        wer_ci95=score.wer_ci95,
        utterance_errors=score.utterance_errors,
        bundle_bytes=size.bundle_bytes,
        float32_bytes=size.float32_bytes,
        ratio=size.ratio,
        rtf=measured.rtf,
        peak_bytes=peak_bytes(),
        threads=torch.get_num_threads(),
        backend=str(subject.inference),
        hardware=subject.hardware,
        commit=provenance.commit(),
        command=provenance.command(),
        config_hash=provenance.config_hash({**plain(model.config), "evaluation": how}),
        units=score.units.value,
        cer=scores.cer,
        groups=scores.groups,
        steps=model.step,
        heard_h=None if model.heard_s is None else model.heard_s / 3600,
        windowed=measured.windowed,
        condition=task.condition,
        memory=subject.memory,
        text_hashes=[_hash(texts[id_]) for id_, _, _ in score.utterance_errors],
        revision=provenance.REVISION,
    )


def _hash(text: str) -> str:
    """Eight hex digits: of two texts that differ, one pair in four billion has the same."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]

"""Search for the most probable labels: greedy over a whole batch, and time-synchronous beam search.

Both bound the symbols of one frame and read the bound the same way: after the last one, blank is taken, whatever
its probability. So a score is always the log-probability of what was walked: one alignment (greedy), or all
alignments that the beam kept (beam search).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import NamedTuple

import torch
from torch import Tensor

from nibble.model.predictor import State
from nibble.model.transducer import BLANK, Transducer

NEGLIGIBLE = 10.0  # nats below the best of a frame at which beam search lets go of a hypothesis: 1 in 22 000
WORD_START = "\u2581"  # SentencePiece's mark


@dataclass
class Hypothesis:
    """Labels, the encoded frame that emitted each, and the natural logarithm of their probability."""

    ids: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    score: float = 0.0


class _LabelSide(NamedTuple):
    """What the predictor knows about some hypotheses: projected output (rows, J) and state."""

    predicted: Tensor
    state: State

    def select(self, rows: Tensor) -> "_LabelSide":
        """Those at `rows` (n,)."""
        return _LabelSide(self.predicted[rows], tuple(part[rows] for part in self.state))

    def replace(self, rows: Tensor, new: "_LabelSide") -> None:
        """Overwrites those at `rows` (n,)."""
        self.predicted[rows] = new.predicted
        for part, new_part in zip(self.state, new.state, strict=True):
            part[rows] = new_part


def _step(model: Transducer, label: Tensor, labels: _LabelSide) -> _LabelSide:
    """label (rows,) appended to each hypothesis."""
    out, state = model.predictor.step(label, labels.state)
    return _LabelSide(model.joiner.project_predictor(out), state)


def _start(model: Transducer, rows: int, device: torch.device) -> _LabelSide:
    """Hypotheses without labels."""
    out, state = model.predictor.step(torch.full((rows,), BLANK, device=device), model.predictor.start(rows, device))
    return _LabelSide(model.joiner.project_predictor(out), state)


@torch.inference_mode()
def greedy(model: Transducer, encoded: Tensor, lengths: Tensor, max_symbols_per_frame: int = 5) -> list[Hypothesis]:
    """The most probable symbol at each point, for all utterances at once.

    Args:
        model: only its predictor and joiner are used.
        encoded: (B, T', D)
        lengths: (B,)
        max_symbols_per_frame: labels that one frame may emit.
    """
    search = GreedySearch(model, encoded.size(0), encoded.device, max_symbols_per_frame)
    search.extend(encoded, lengths)
    return search.hypotheses


class GreedySearch:
    """`greedy`, of utterances whose frames come in parts; what it finds does not depend on where they are cut.

    Every utterance walks its own alignment: a round moves each by one frame (blank) or one label, so a batch takes as
    many rounds as its longest walk, not the sum over frames of the busiest utterance.

    Args:
        model: only its predictor and joiner are used.
        batch: B.
        device: where to.
        max_symbols_per_frame: labels that one frame may emit.
    """

    @torch.inference_mode()
    def __init__(self, model: Transducer, batch: int, device: torch.device, max_symbols_per_frame: int = 5) -> None:
        self.hypotheses = [Hypothesis() for _ in range(batch)]
        self._model = model
        self._max_symbols = max_symbols_per_frame
        self._labels = _start(model, batch, device)
        self._heard = torch.zeros(batch, dtype=torch.long, device=device)  # frames

    @torch.inference_mode()
    def extend(self, encoded: Tensor, lengths: Tensor) -> None:
        """The next frames of each utterance: encoded (B, T', D), lengths (B,)."""
        model, labels, device = self._model, self._labels, encoded.device
        batch = encoded.size(0)
        projected = model.joiner.project_encoder(encoded)  # (B, T', J)
        rows = torch.arange(batch, device=device)
        frame = torch.zeros(batch, dtype=torch.long, device=device)
        symbols = torch.zeros_like(frame)
        score = torch.zeros(batch, device=device)
        lengths = lengths.to(device)
        last = lengths - 1
        while bool((walking := frame <= last).any()):
            logits = model.joiner.combine(projected[rows, torch.minimum(frame, last)], labels.predicted).float()
            label = logits.argmax(dim=1).masked_fill(symbols >= self._max_symbols, BLANK)
            chosen = logits.gather(1, label.unsqueeze(1))[:, 0] - logits.logsumexp(dim=1)
            score += chosen.where(walking, 0.0)
            emits = walking & (label != BLANK)
            emitting = emits.nonzero()[:, 0]
            if len(emitting):
                where = (self._heard + frame)[emitting]
                for row, one_label, one_frame in zip(
                    emitting.tolist(), label[emitting].tolist(), where.tolist(), strict=True
                ):
                    self.hypotheses[row].ids.append(one_label)
                    self.hypotheses[row].frames.append(one_frame)
                labels.replace(emitting, _step(model, label[emitting], labels.select(emitting)))
            symbols = (symbols + 1).where(emits, 0)
            frame = frame + ~emits
        self._heard += lengths
        for hypothesis, value in zip(self.hypotheses, score.tolist(), strict=True):
            hypothesis.score += value


@torch.inference_mode()
def beam(
    model: Transducer, encoded: Tensor, lengths: Tensor, width: int, max_symbols_per_frame: int = 5
) -> list[Hypothesis]:
    """The most probable label sequence among the `width` best at each frame, one utterance at a time.

    Alignments of equal labels are one entry whose probabilities add; its frames are those of its likelier part.
    Arguments as `greedy`.
    """
    projected = model.joiner.project_encoder(encoded)  # (B, T', J)
    return [
        _search(model, frames[:length], width, max_symbols_per_frame)
        for frames, length in zip(projected, lengths.tolist(), strict=True)
    ]


class _Entry(NamedTuple):
    """A hypothesis on the beam; `row` is where its label-side tensors stand."""

    ids: tuple[int, ...]
    frames: tuple[int, ...]
    score: float
    row: int


def _search(model: Transducer, projected: Tensor, width: int, max_symbols: int) -> Hypothesis:
    """projected (T', J) of one utterance -> the best hypothesis."""
    entries = [_Entry((), (), 0.0, 0)]
    labels = _start(model, 1, projected.device)
    for time, frame in enumerate(projected):
        entries, labels = _search_frame(model, frame, time, entries, labels, width, max_symbols)
    best = max(entries, key=_score)
    return Hypothesis(list(best.ids), list(best.frames), best.score)


def _search_frame(
    model: Transducer,
    frame: Tensor,
    time: int,
    entries: list[_Entry],
    labels: _LabelSide,
    width: int,
    max_symbols: int,
) -> tuple[list[_Entry], _LabelSide]:
    """Lets the entries emit up to `max_symbols` labels at `frame` (J,), then blank; the `width` best go on."""
    finished: dict[tuple[int, ...], _Entry] = {}
    pools: list[_LabelSide] = []
    first_row = 0
    for symbols in range(max_symbols + 1):
        log_probs = model.joiner.combine(frame, labels.predicted).float().log_softmax(dim=1)  # (rows, V)
        pools.append(labels)
        for entry, blank in zip(entries, log_probs[:, BLANK].tolist(), strict=True):
            _merge(finished, entry._replace(score=entry.score + blank, row=first_row + entry.row))
        if symbols == max_symbols:
            break
        first_row += len(entries)
        scores = log_probs + log_probs.new_tensor([[entry.score] for entry in entries])
        scores[:, BLANK] = float("-inf")
        best = scores.flatten().topk(min(width, scores.numel() - len(entries)))
        bar = max(map(_score, finished.values())) - NEGLIGIBLE
        kept = [
            (score, *divmod(at, scores.size(1)))
            for score, at in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if score > bar
        ]
        if not kept:
            break
        entries = [
            _Entry((*entries[parent].ids, label), (*entries[parent].frames, time), score, row)
            for row, (score, parent, label) in enumerate(kept)
        ]
        parents = torch.tensor([parent for _, parent, _ in kept], device=frame.device)
        emitted = torch.tensor([label for _, _, label in kept], device=frame.device)
        labels = _step(model, emitted, labels.select(parents))
    winners = nlargest(width, finished.values(), key=_score)
    rows = torch.tensor([entry.row for entry in winners], device=frame.device)
    pool = _LabelSide(
        torch.cat([part.predicted for part in pools]),
        tuple(torch.cat(parts) for parts in zip(*(part.state for part in pools), strict=True)),
    )
    return [entry._replace(row=row) for row, entry in enumerate(winners)], pool.select(rows)


def _score(entry: _Entry) -> float:
    return entry.score


def _merge(entries: dict[tuple[int, ...], _Entry], new: _Entry) -> None:
    """Adds the probability of `new` to that of the entry with the same labels, if there is one."""
    old = entries.get(new.ids)
    if old is not None:
        better, worse = (new, old) if new.score > old.score else (old, new)
        new = better._replace(score=better.score + math.log1p(math.exp(worse.score - better.score)))
    entries[new.ids] = new


@dataclass
class Word:
    """A word and when it was said, in seconds from the start of the utterance."""

    text: str
    start_s: float
    end_s: float


def word_timestamps(pieces: Sequence[str], frames: Sequence[int], frame_s: float) -> list[Word]:
    """Words from SentencePiece pieces and the encoded frame that emitted each piece.

    A word begins at the frame of its first letters and ends with the frame of its last.
    """
    words: list[Word] = []
    begins = True
    for piece, frame in zip(pieces, frames, strict=True):
        begins = begins or piece.startswith(WORD_START)
        text = piece.removeprefix(WORD_START)
        if not text:  # a mark of its own, as character tokens have
            continue
        end_s = (frame + 1) * frame_s
        if begins:
            words.append(Word(text, frame * frame_s, end_s))
        else:
            words[-1] = Word(words[-1].text + text, words[-1].start_s, end_s)
        begins = False
    return words

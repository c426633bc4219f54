"""Search for the most probable labels: greedy over a whole batch, and time-synchronous beam search.

Neither can loop, whatever a model makes of noise or silence. A frame emits at most `max_symbols_per_frame` labels, and
no label stands more than `MAX_REPEATS` times in a row; where either bound is reached, blank or another label is taken,
whatever its probability. A score is the log-probability of the labels found: of one alignment (greedy), or of all
alignments that the beam kept (beam search).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import NamedTuple

import torch
from torch import Tensor

from nibble.conventions import BLANK, WORD_START
from nibble.errors import UserError
from nibble.model.searchable import LabelState, Searchable

MAX_REPEATS = 10  # equal labels in a row; no word has ten equal letters, and ten zeros are 10 000 000 000
NEGLIGIBLE = 10.0  # nats below the best of a frame at which beam search drops a hypothesis: 1 in 22 000


@dataclass
class Hypothesis:
    """Labels, the encoded frame that emitted each, and the natural logarithm of their probability."""

    ids: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    score: float = 0.0


@torch.inference_mode()
def greedy(model: Searchable, encoded: Tensor, lengths: Tensor, max_symbols_per_frame: int = 5) -> list[Hypothesis]:
    """The most probable symbol at each point, for all utterances at once.

    Args:
        model: the network, or another `Searchable`.
        encoded: (B, T', D)
        lengths: (B,)
        max_symbols_per_frame: labels that one frame may emit.
    """
    search = GreedySearch(model, encoded.size(0), encoded.device, max_symbols_per_frame)
    search.extend(encoded, lengths)
    return search.hypotheses


class GreedySearch:
    """Greedy search of utterances whose frames come in parts; the result does not depend on where they are cut.

    Every utterance walks its own alignment: a round moves each by one frame (blank) or one label, so a batch takes as
    many rounds as its longest walk, not the sum over frames of the busiest utterance.

    Args:
        model: the network, or another `Searchable`.
        batch: B, the number of utterances.
        device: where the frames will be.
        max_symbols_per_frame: labels that one frame may emit.
    """

    @torch.inference_mode()
    def __init__(self, model: Searchable, batch: int, device: torch.device, max_symbols_per_frame: int = 5) -> None:
        self.hypotheses = [Hypothesis() for _ in range(batch)]
        self._model = model
        self._max_symbols = max_symbols_per_frame
        self._labels = model.start_labels(batch, device)
        self._stuck: dict[int, int] = {}  # utterance -> the label that it may not repeat once more
        self._heard = torch.zeros(batch, dtype=torch.long, device=device)  # frames
        self._ahead = self._heard.clone()  # frames of the next part that the last label or blank lasts for

    @torch.inference_mode()
    def extend(self, encoded: Tensor, lengths: Tensor) -> None:
        """The next frames of each utterance: encoded (B, T', D), lengths (B,)."""
        model, labels, device = self._model, self._labels, encoded.device
        batch = encoded.size(0)
        projected = model.project(encoded)  # (B, T', J)
        rows = torch.arange(batch, device=device)
        frame, symbols = self._ahead, torch.zeros_like(self._ahead)
        score = torch.zeros(batch, device=device)
        lengths = lengths.to(device)
        last = lengths - 1
        while bool((walking := frame <= last).any()):
            logits = model.label_logits(projected[rows, torch.minimum(frame, last)], labels).float()
            logits, durations = logits.tensor_split((logits.size(1) - model.durations,), dim=1)
            bound = symbols >= self._max_symbols
            for row, repeated in self._stuck.items():
                bound[row] |= logits[row].argmax() == repeated
            label = logits.argmax(dim=1).masked_fill(bound, BLANK)
            score += _log_prob(logits, label).where(walking, 0.0)
            emits = walking & (label != BLANK)
            frames = (~emits).long()
            if model.durations:
                frames = durations.argmax(dim=1).maximum(frames).where(~bound, 1)
                score += _log_prob(durations, frames).where(walking, 0.0)
            emitting = emits.nonzero()[:, 0]
            if len(emitting):
                where = (self._heard + frame)[emitting]
                for row, one_label, one_frame in zip(
                    emitting.tolist(), label[emitting].tolist(), where.tolist(), strict=True
                ):
                    self._emit(row, one_label, one_frame)
                labels.replace(emitting, model.append_label(label[emitting], labels.select(emitting)))
            symbols = (symbols + 1).where(emits & (frames == 0), 0)
            frame = torch.where(walking, frame + frames, frame)
        self._heard += lengths
        self._ahead = (frame - lengths).clamp(min=0)
        for hypothesis, value in zip(self.hypotheses, score.tolist(), strict=True):
            hypothesis.score += value

    def _emit(self, row: int, label: int, frame: int) -> None:
        """Append a label to the hypothesis of an utterance."""
        hypothesis = self.hypotheses[row]
        hypothesis.ids.append(label)
        hypothesis.frames.append(frame)
        if _repeats_enough(hypothesis.ids):
            self._stuck[row] = label
        else:
            self._stuck.pop(row, None)


def _log_prob(logits: Tensor, chosen: Tensor) -> Tensor:
    """logits (B, N), chosen (B,) -> (B,)."""
    return logits.gather(1, chosen.unsqueeze(1))[:, 0] - logits.logsumexp(dim=1)


def _repeats_enough(ids: Sequence[int]) -> bool:
    """Whether the last label stands `MAX_REPEATS` times in a row at the end."""
    return len(ids) >= MAX_REPEATS and len(set(ids[-MAX_REPEATS:])) == 1


@torch.inference_mode()
def beam(
    model: Searchable, encoded: Tensor, lengths: Tensor, width: int, max_symbols_per_frame: int = 5
) -> list[Hypothesis]:
    """The most probable label sequence among the `width` best at each frame, one utterance at a time.

    Alignments of equal labels are one entry whose probabilities add; its frames are those of its likelier part.
    Arguments as `greedy`.

    Raises:
        UserError: the model predicts durations, so that its hypotheses do not go from frame to frame together.
    """
    if model.durations:
        raise UserError(
            "this model predicts durations (TDT), which beam search cannot; give decoding=greedy or beam_width=1"
        )
    projected = model.project(encoded)  # (B, T', J)
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


class _Beam(NamedTuple):
    """The hypotheses that are kept, and the state of the label side with a row for each."""

    entries: list[_Entry]
    labels: LabelState


def _search(model: Searchable, projected: Tensor, width: int, max_symbols: int) -> Hypothesis:
    """projected (T', J) of one utterance -> the best hypothesis."""
    beam = _Beam([_Entry((), (), 0.0, 0)], model.start_labels(1, projected.device))
    for time, frame in enumerate(projected):
        beam = _search_frame(model, frame, time, beam, width, max_symbols)
    best = max(beam.entries, key=_score)
    return Hypothesis(list(best.ids), list(best.frames), best.score)


def _search_frame(model: Searchable, frame: Tensor, time: int, beam: _Beam, width: int, max_symbols: int) -> _Beam:
    """Let the beam emit up to `max_symbols` labels at `frame` (J,), then blank; returns the `width` best."""
    entries, labels = beam
    finished: dict[tuple[int, ...], _Entry] = {}
    pools: list[LabelState] = []
    first_row = 0
    for symbols in range(max_symbols + 1):
        log_probs = model.label_logits(frame, labels).float().log_softmax(dim=1)  # (rows, V)
        pools.append(labels)
        for entry, blank in zip(entries, log_probs[:, BLANK].tolist(), strict=True):
            _merge(finished, entry._replace(score=entry.score + blank, row=first_row + entry.row))
        if symbols == max_symbols:
            break
        first_row += len(entries)
        scores = log_probs + log_probs.new_tensor([[entry.score] for entry in entries])
        scores[:, BLANK] = float("-inf")
        for row, entry in enumerate(entries):
            if _repeats_enough(entry.ids):
                scores[row, entry.ids[-1]] = float("-inf")
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
        labels = model.append_label(emitted, labels.select(parents))
    winners = nlargest(width, finished.values(), key=_score)
    rows = torch.tensor([entry.row for entry in winners], device=frame.device)
    pool = LabelState(
        torch.cat([part.predicted for part in pools]),
        tuple(torch.cat(parts) for parts in zip(*(part.memory for part in pools), strict=True)),
    )
    return _Beam([entry._replace(row=row) for row, entry in enumerate(winners)], pool.select(rows))


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
    """A word and when it was said, in seconds."""

    text: str
    start_s: float
    end_s: float


def word_timestamps(pieces: Sequence[str], starts_s: Sequence[float], frame_s: float) -> list[Word]:
    """Words from SentencePiece pieces and the start of each, the time of the encoded frame that emitted it.

    A word begins at the frame of its first letters and ends with the frame of its last.
    """
    words: list[Word] = []
    begins = True
    for piece, start_s in zip(pieces, starts_s, strict=True):
        begins = begins or piece.startswith(WORD_START)
        text = piece.removeprefix(WORD_START)
        if not text:  # a mark of its own, as character tokens have
            continue
        end_s = start_s + frame_s
        if begins:
            words.append(Word(text, start_s, end_s))
        else:
            words[-1] = Word(words[-1].text + text, words[-1].start_s, end_s)
        begins = False
    return words

"""Leaves out utterances that can't be trained on, and reports characters that the labels lack."""

import logging
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nibble.data.cuts import Cuts
from nibble.data.options import DataConfig
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError

SHOWN = 5

log = logging.getLogger(__name__)


def trainable(cuts: Cuts, tokenizer: Tokenizer, data: DataConfig, encoded_frames: Callable[[int], int] | None) -> Cuts:
    """Leave out cuts that are too short, too long, or have fewer encoded frames than their labels need.

    Connectionist temporal classification (Graves et al., 2006) needs a frame per label and one more between equal
    neighbours; the transducer needs one frame in all.

    Args:
        cuts: of the training parts.
        tokenizer: makes the labels.
        data: has the durations.
        encoded_frames: computes the encoded frames of a number of samples; None if the loss has no CTC term.

    Raises:
        UserError: nothing is left.
    """
    long_enough = (cuts.durations_s >= data.min_duration_s) & (cuts.durations_s <= data.max_duration_s)
    kept, crowded = np.flatnonzero(long_enough), []
    durations = [f"{cuts[n].id} ({cuts.durations_s[n]:.2f} s)" for n in _first(np.flatnonzero(~long_enough))]
    if encoded_frames is not None:
        enough = np.ones(len(kept), dtype=bool)
        for place, number in enumerate(kept):
            cut = cuts[int(number)]
            frames = encoded_frames(cut.num_samples)
            needed = _ctc_frames(tokenizer.encode(cut.supervisions[0].text))
            if frames < needed:
                enough[place] = False
                crowded.append(f"{cut.id} ({frames} frames, {needed} needed)")
        kept = kept[enough]
    reasons = []
    outside = int((~long_enough).sum())
    if outside:
        limits = f"data.min_duration_s={data.min_duration_s:g} and data.max_duration_s={data.max_duration_s:g}"
        reasons.append(f"{outside} training utterances outside {limits} left out: {_some(durations, outside)}")
    if crowded:
        reasons.append(f"{len(crowded)} training utterances shorter than their labels left out: {_some(crowded)}")
    if not len(kept):
        raise UserError(f"no training utterance is left; {'; '.join(reasons) or 'there was none'}")
    for reason in reasons:
        log.warning(reason)
    return cuts.select(kept)


def _ctc_frames(ids: list[int]) -> int:
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def report_unknown(cuts: Cuts, tokenizer: Tokenizer) -> None:
    """Say which characters of the references the model can't write, because training had none of them."""
    affected: list[str] = []
    characters: set[str] = set()
    for cut in cuts:
        unknown = tokenizer.unknown(cut.supervisions[0].text)
        if unknown:
            affected.append(cut.id)
            characters |= unknown
    if affected:
        log.warning(
            "%d utterances hold characters that training doesn't, so they can't be recognised in full: %s (%s)",
            len(affected),
            " ".join(sorted(characters)),
            _some(affected),
        )


def _first(numbers: NDArray[np.int64]) -> list[int]:
    return [int(number) for number in numbers[:SHOWN]]


def _some(names: list[str], count: int | None = None) -> str:
    """The first few of `names`, and how many more there are of `count`."""
    count = len(names) if count is None else count
    more = [f"and {count - SHOWN} more"] if count > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])

"""Utterances that can't be trained on, and characters that can't be written."""

import logging
from collections.abc import Callable
from itertools import pairwise

from lhotse import CutSet

from nibble.data.options import DataConfig
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.features.kaldi import frame_count

SHOWN = 5

log = logging.getLogger(__name__)


def trainable(
    cuts: CutSet, tokenizer: Tokenizer, data: DataConfig, encoded_frames: Callable[[int], int] | None
) -> CutSet:
    """`cuts` without those of a forbidden duration or with fewer encoder frames than their labels need.

    Connectionist temporal classification (Graves et al., 2006) needs a frame per label and one more between equal
    neighbours; the transducer needs one frame in all.

    Args:
        cuts: of the training parts.
        tokenizer: makes the labels.
        data: has the durations.
        encoded_frames: of a loss with a CTC term, feature frames -> frames that the encoder makes of them.

    Raises:
        UserError: nothing is left.
    """
    kept, durations, crowded = [], [], []
    for cut in cuts:
        if not data.min_duration_s <= cut.duration <= data.max_duration_s:
            durations.append(f"{cut.id} ({cut.duration:.2f} s)")
            continue
        if encoded_frames is not None:
            frames = encoded_frames(frame_count(cut.num_samples))
            needed = _ctc_frames(tokenizer.encode(cut.supervisions[0].text))
            if frames < needed:
                crowded.append(f"{cut.id} ({frames} frames, {needed} needed)")
                continue
        kept.append(cut)
    reasons = []
    if durations:
        limits = f"data.min_duration_s={data.min_duration_s:g} and data.max_duration_s={data.max_duration_s:g}"
        reasons.append(f"{len(durations)} training utterances outside {limits} left out: {_some(durations)}")
    if crowded:
        reasons.append(f"{len(crowded)} training utterances shorter than their labels left out: {_some(crowded)}")
    if not kept:
        raise UserError(f"no training utterance is left; {'; '.join(reasons) or 'there was none'}")
    for reason in reasons:
        log.warning(reason)
    return CutSet.from_cuts(kept)


def _ctc_frames(ids: list[int]) -> int:
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def report_unknown(cuts: CutSet, tokenizer: Tokenizer) -> None:
    """Say which characters of the references the model can't write, because training had none of them."""
    unknown = {cut.id: tokenizer.unknown(cut.supervisions[0].text) for cut in cuts}
    affected = [name for name, characters in unknown.items() if characters]
    if affected:
        characters = " ".join(sorted(set().union(*unknown.values())))
        log.warning(
            "%d utterances hold characters that training doesn't, so they can't be recognised in full: %s (%s)",
            len(affected),
            characters,
            _some(affected),
        )


def _some(names: list[str]) -> str:
    """The first few of `names`, and how many more there are."""
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])

"""Models with fresh weights that find labels as often as there are in speech: search takes a step for each."""

import torch
from torch import Tensor

from nibble.conventions import BLANK
from nibble.model.decoding import greedy
from nibble.model.transducer import Transducer
from nibble.progress import track

LABELS_A_SECOND = 4  # of 1024 byte pairs, in read English speech
_HALVINGS = 12


@torch.inference_mode()
def favour_blank(model: Transducer, features: Tensor, lengths: Tensor, duration_s: float) -> float:
    """Give blank the least bias, to some thousandth, with which greedy search finds no more labels than speech has.

    Args:
        model: is changed.
        features: of some speech or noise, (B, T, F).
        lengths: (B,).
        duration_s: of all of it.

    Returns:
        the bias.
    """
    bias = model.joiner.output.bias
    encoded = model.encode(features, lengths)
    low, high = -10.0, 10.0
    for _ in track(range(_HALVINGS), "making labels as frequent as in speech", _HALVINGS):
        bias[BLANK] = middle = (low + high) / 2
        found = sum(len(hypothesis.ids) for hypothesis in greedy(model, *encoded))
        low, high = (middle, high) if found > LABELS_A_SECOND * duration_s else (low, middle)
    bias[BLANK] = high
    return high

"""The best path of a CTC network, as every search finds it."""

from itertools import groupby

import pytest
import torch
import torch.nn.functional as F
from tiny_transducer import FEATURES, MEL_BINS, tiny_config

from nibble.conventions import BLANK
from nibble.errors import UserError
from nibble.model.decoding import MAX_REPEATS, beam, greedy
from nibble.model.options import Predictor
from nibble.model.transducer import Transducer

LABELS = 4


def network() -> Transducer:
    torch.manual_seed(0)
    return Transducer(tiny_config(Predictor.none, predictor_width=0, joiner_width=0), FEATURES, LABELS).eval()


def frames_of(labels: list[int], width: int) -> torch.Tensor:
    """Encoded frames (1, T', D) in which a head of the identity finds these labels."""
    return F.one_hot(torch.tensor([labels]), width).float()


def said(path: list[int]) -> list[int]:
    """The labels of a path, one by one: at most so many in a row, as in every search."""
    labels = [label for label, _ in groupby(path) if label != BLANK]
    runs = [list(run)[:MAX_REPEATS] for _, run in groupby(labels)]
    return [label for run in runs for label in run]


@pytest.mark.parametrize(
    "path",
    [
        [0, 0],
        [1],
        [0, 2, 2, 0, 2, 3, 3, 1, 0, 0],
        [1, 1, 0, 1, 2, 1],
        [2, 0] * 13 + [3, 0, 2, 2],
        [2, 0] * 12 + [2, 3, 3, 0] + [3, 0] * 12 + [1],
    ],
)
def test_equal_labels_are_one_unless_a_blank_stands_between(path: list[int]) -> None:
    model = network()
    with torch.no_grad():
        model.joiner.output.weight.copy_(torch.eye(LABELS, model.encoder.width))
        model.joiner.output.bias.zero_()
    encoded = frames_of(path, model.encoder.width).expand(2, -1, -1)
    lengths = torch.tensor([len(path), len(path) // 2])
    for found in (greedy(model, encoded, lengths), beam(model, encoded, lengths, 3)):
        assert [one.ids for one in found] == [said(path[:length]) for length in lengths]
        places = [
            frame for frame, label in enumerate(path) if label != BLANK and (frame == 0 or path[frame - 1] != label)
        ]
        assert set(found[0].frames) <= set(places)


@torch.no_grad()
def test_logits_do_not_depend_on_labels() -> None:
    model = network()
    features, lengths = torch.randn(2, 50, MEL_BINS), torch.tensor([50, 30])
    logits, encoded, _ = model(features, lengths, torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    assert torch.equal(logits[:, :, 0], model.joiner.logits(encoded))
    assert logits.shape[2:] == (1, LABELS)


def test_it_does_not_stream() -> None:
    with pytest.raises(UserError, match=r"predictor=none searches whole utterances"):
        tiny_config(Predictor.none, chunk_frames=4)

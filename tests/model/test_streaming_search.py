"""Speech in pieces is recognised as the whole."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from tiny_transducer import MEL_BINS

from nibble.errors import UserError
from nibble.model.decoding import greedy
from nibble.model.streaming_search import Stream
from nibble.model.transducer import Transducer


@pytest.mark.parametrize("frames", [1, 6, 14, 18, 19, 22, 23, 35, 36, 120])
def test_whatever_the_pieces_the_labels_are_those_of_the_whole(
    make_tiny: Callable[..., Transducer], frames: int
) -> None:
    model = make_tiny(chunk_frames=4, left_chunks=2)
    features = torch.randn(frames, MEL_BINS, generator=torch.Generator().manual_seed(frames)) * 4
    expected = greedy(model, *model.encode(features[None], torch.tensor([frames])))[0]
    assert frames < 100 or len(expected.ids) > 5
    for cuts in ([], [1], [frames // 2], [19, 35], list(range(frames))):
        stream = Stream(model)
        for first, last in pairwise([0, *(cut for cut in cuts if cut < frames), frames]):
            stream.accept(features[first:last])
        stream.finish()
        assert (stream.hypothesis.ids, stream.hypothesis.frames) == (expected.ids, expected.frames)
        assert stream.hypothesis.score == pytest.approx(expected.score, abs=1e-4)


def test_a_chunk_is_recognised_as_soon_as_it_is_there(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny(chunk_frames=4, left_chunks=2)
    features = torch.randn(40, MEL_BINS) * 4
    stream = Stream(model)
    stream.accept(features[:18])
    assert stream.hypothesis.score == 0
    stream.accept(features[18:19])
    first = stream.hypothesis.score
    assert first < 0
    stream.accept(features[19:34])
    assert stream.hypothesis.score == first
    stream.accept(features[34:35])
    assert stream.hypothesis.score < first


def test_a_model_of_whole_utterances_does_not_stream(make_tiny: Callable[..., Transducer]) -> None:
    with pytest.raises(UserError, match="encodes whole utterances: train one that streams, model=conformer_stream_s"):
        Stream(make_tiny())

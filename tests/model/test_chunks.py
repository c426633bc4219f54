import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nibble.model.chunks import SILENCE, Cached, Chunks, Neighbours
from nibble.model.subsampling import Subsampling

FRAMES = st.integers(1, 200)
CHUNKS = st.builds(Chunks, st.integers(1, 9), st.just(4), st.just(3))
SUBSAMPLING = Subsampling(mel_bins=20, channels=4, width=6)


@given(FRAMES, CHUNKS)
def test_chunks_hold_all_frames_and_none_is_empty(frames: int, chunks: Chunks) -> None:
    count = chunks.count(frames)
    assert chunks.frames * (count - 1) < SUBSAMPLING.output_length(frames) <= chunks.frames * count
    assert chunks.count(torch.tensor([frames, 1])).tolist() == [count, 1]


@given(FRAMES, FRAMES, CHUNKS)
def test_what_is_missing_of_a_chunk_is_silence(frames: int, other: int, chunks: Chunks) -> None:
    lengths = torch.tensor([frames, other])
    features = torch.rand(2, max(frames, other), 2)
    whole = chunks.whole(features, lengths)
    assert whole.shape == (2, chunks.feature_frames(chunks.count(max(frames, other))), 2)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(whole[row, :length], features[row, : min(length, whole.size(1))])
        assert (whole[row, length:] == SILENCE).all()


def test_silence_is_what_the_features_of_silence_are() -> None:
    from nibble.features.extractor import make_features
    from nibble.features.options import FeatureConfig

    torch.testing.assert_close(make_features(FeatureConfig())(torch.zeros(1600)), torch.full((10, 80), SILENCE))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_rows_are_the_windows_of_the_subsampling(chunk: int) -> None:
    torch.manual_seed(0)
    subsampling, chunks = Subsampling(mel_bins=20, channels=4, width=6), Chunks(chunk, 4, 3)
    features = torch.randn(2, chunks.feature_frames(3), 20)
    rows = subsampling.without_padding(chunks.rows(features))
    assert rows.shape == (6, chunk, 6)
    whole, lengths = subsampling(features, torch.full((2,), features.size(1)))
    assert lengths.tolist() == [3 * chunk] * 2
    torch.testing.assert_close(rows.reshape(2, 3 * chunk, 6), whole)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
def test_a_cache_holds_what_the_neighbours_are(utterances: int, chunks: int, chunk: int, frames: int) -> None:
    x = torch.rand(utterances, chunks, chunk, 2)
    past = Neighbours(utterances, chunks, frames, chunk, x.device)
    whole = past.extend(x.flatten(0, 1), frames).unflatten(0, (utterances, chunks))
    visible = past.visible.unflatten(0, (utterances, chunks))
    memory = [torch.zeros(utterances, frames, 2)]
    said = torch.cat((torch.zeros(utterances, frames, 2), x.flatten(1, 2)), dim=1)
    for number in range(chunks):
        cached = Cached(memory, torch.full((utterances,), chunk * number), frames, chunk)
        assert torch.equal(cached.extend(x[:, number], frames), whole[:, number])
        assert torch.equal(whole[:, number], said[:, chunk * number : chunk * (number + 1) + frames])
        assert torch.equal(cached.visible, visible[:, number])
        seen = min(frames, chunk * number)
        assert visible[0, number, :, 0].tolist() == [False] * (frames - seen) + [True] * (seen + chunk)
        memory = cached.renewed

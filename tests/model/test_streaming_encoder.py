"""Whole utterances and chunk by chunk are the same network, and no frame hears what it must not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from padded_training import assert_padding_changes_no_statistics
from tiny_transducer import FEATURES, MEL_BINS, tiny_config

from nibble.model.attention import RelativeAttention, relative_positions
from nibble.model.chunks import Neighbours
from nibble.model.loss import transducer_loss
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.transducer import Transducer


def speech(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, MEL_BINS) * 4 - 8


def chunk_by_chunk(encoder: StreamingEncoder, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What `step` gives for each chunk, one after the other: (B, T', D)."""
    utterances = features.size(0)
    memory, encoded = encoder.start(utterances, features.device), []
    rows = encoder.chunks.rows(encoder.chunks.whole(features, lengths))
    for number, chunk in enumerate(rows.unflatten(0, (utterances, -1)).unbind(1)):
        out, memory = encoder.step(chunk, memory, torch.full((utterances,), number * encoder.chunks.frames))
        encoded.append(out)
    return torch.cat(encoded, dim=1)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=3),
    chunk=st.integers(1, 7),
    left_chunks=st.integers(1, 4),
    kernel=st.sampled_from([3, 5, 15]),
)
def test_chunk_by_chunk_is_the_whole(seed: int, lengths: list[int], chunk: int, left_chunks: int, kernel: int) -> None:
    torch.manual_seed(seed)
    config = tiny_config(chunk_frames=chunk, left_chunks=left_chunks, kernel=kernel)
    encoder = StreamingEncoder(config, FEATURES, chunk).eval()
    for tensor in encoder.state_dict().values():  # biases and statistics other than zero
        tensor += 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else 0
    features, sizes = speech(len(lengths), max(lengths)), torch.tensor(lengths)
    with torch.no_grad():
        whole, encoded_lengths = encoder(features, sizes)
        streamed = chunk_by_chunk(encoder, features, sizes)
    assert (encoded_lengths % chunk == 0).all()
    for row, length in enumerate(encoded_lengths.tolist()):
        torch.testing.assert_close(streamed[row, :length], whole[row, :length], atol=1e-5, rtol=1e-5)
        assert (whole[row, length:] == 0).all()


def test_a_frame_hears_its_chunk_and_a_limited_past() -> None:
    """By gradients: with one block, exactly the feature frames that it should."""
    chunk, left, kernel = 3, 2, 5
    torch.manual_seed(0)
    config = tiny_config(layers=1, chunk_frames=chunk, left_chunks=left, kernel=kernel)
    encoder = StreamingEncoder(config, FEATURES, chunk).eval()
    features = speech(1, 4 * chunk * 6 + 3).requires_grad_()
    encoded, _ = encoder(features, torch.tensor([features.size(1)]))
    for frame in (0, 4, 9, 14, 15):
        (gradient,) = torch.autograd.grad(encoded[0, frame].square().sum(), features, retain_graph=True)
        heard = gradient[0].abs().sum(1).nonzero()[:, 0].tolist()
        # The convolution mixes frames that have each attended to chunks of their own.
        first = (max(0, frame - (kernel - 1)) // chunk - left) * chunk
        assert heard == list(range(max(0, 4 * first), 4 * chunk * (frame // chunk + 1) + 3)), frame


def test_attention_is_that_of_whole_utterances_under_a_mask() -> None:
    chunk, left, chunks, width, heads = 4, 8, 5, 16, 2
    torch.manual_seed(0)
    attention = RelativeAttention(width, heads, dropout=0.0).eval()
    torch.nn.init.normal_(attention.content_bias)
    torch.nn.init.normal_(attention.position_bias)
    frames = chunk * chunks
    x = torch.randn(2, frames, width)
    positions = relative_positions(chunk, width, x.device, left)
    rows = x.reshape(-1, chunk, width)
    valid = torch.ones(len(rows), chunk, 1, dtype=torch.bool)
    got = attention(rows, positions, valid, Neighbours(2, chunks, left, chunk, x.device)).reshape(2, frames, width)

    y = attention.norm(x)
    query, key, value = (layer(y) for layer in (attention.query, attention.key, attention.value))
    # From far ahead to far behind: the distance d stands at place frames - 1 - d.
    placed = attention.position(relative_positions(frames, width, x.device))
    part, i, j = width // heads, torch.arange(frames)[:, None], torch.arange(frames)
    mask = (j // chunk <= i // chunk) & (j >= i // chunk * chunk - left)
    attended = []
    for head in range(heads):
        cut = slice(head * part, (head + 1) * part)
        content = (query[..., cut] + attention.content_bias[cut]) @ key[..., cut].transpose(1, 2)
        by_distance = (query[..., cut] + attention.position_bias[cut]) @ placed[:, cut].T
        by_position = by_distance[:, i, frames - 1 - (i - j)]
        scores = ((content + by_position) * attention.scale).masked_fill(~mask, float("-inf"))
        attended.append(scores.softmax(2) @ value[..., cut])
    torch.testing.assert_close(got, attention.output(torch.cat(attended, dim=2)), atol=1e-5, rtol=1e-5)


def test_other_utterances_change_nothing() -> None:
    torch.manual_seed(0)
    model = Transducer(tiny_config(chunk_frames=4, left_chunks=2), FEATURES, 8).eval()
    lengths = torch.tensor([90, 1, 23, 40])
    features = speech(4, 90)
    encoded, frames = model.encode(features, lengths)
    assert frames.tolist() == [24, 4, 8, 12]
    for row, length in enumerate(lengths.tolist()):
        alone, _ = model.encode(features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(encoded[row, : frames[row]], alone[0], atol=1e-5, rtol=1e-5)


def test_padding_changes_no_statistics_in_training() -> None:
    def make() -> Transducer:
        torch.manual_seed(0)
        return Transducer(tiny_config(chunk_frames=4, left_chunks=2), FEATURES, 8)

    assert_padding_changes_no_statistics(make, speech(2, 60), extra=45)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = Transducer(tiny_config(chunk_frames=3, left_chunks=2), FEATURES, 8).train()
    labels, sizes = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    logits, _, frames = model(speech(1, 60), torch.tensor([60]), labels, sizes)
    transducer_loss(logits, frames, labels, sizes).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith(("key.bias", "depthwise.bias")):  # the softmax and BatchNorm cancel them
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("left_chunks", [1, 3])
def test_the_layers_are_those_of_whole_utterances(left_chunks: int) -> None:
    """So rules and weights are for both."""
    streaming, whole = (
        Transducer(tiny_config(**given), FEATURES, 8)
        for given in ({"chunk_frames": 4, "left_chunks": left_chunks}, {"chunk_frames": None})
    )
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (streaming, whole)]
    assert shapes[0] == shapes[1]
    assert [name for name, _ in streaming.named_modules()] == [name for name, _ in whole.named_modules()]

import math

import pytest
import torch

from nibble.model import attention as attention_module
from nibble.model.attention import (
    RelativeAttention,
    _attended,
    _position_scores,
    relative_positions,
    relative_shift,
)
from nibble.model.padding import valid_frames


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shift_puts_each_distance_at_its_key(frames: int) -> None:
    distances = torch.arange(frames - 1, -frames - 1, -1).expand(1, 1, frames, -1).contiguous()
    queries, keys = torch.arange(frames).unsqueeze(1), torch.arange(frames)
    assert torch.equal(relative_shift(distances)[0, 0], queries - keys)


def test_positions_are_sinusoids_of_the_distance() -> None:
    positions = relative_positions(3, 6, torch.device("cpu"))
    assert positions.shape == (6, 6)
    angle = 2 / 10_000 ** (2 / 6)
    assert positions[0, 2:4].tolist() == pytest.approx([math.sin(angle), math.cos(angle)])  # distance 2
    assert positions[2].tolist() == [0, 1, 0, 1, 0, 1]  # distance 0


def test_attention_is_the_formula_of_transformer_xl() -> None:
    torch.manual_seed(0)
    frames, width, heads = 7, 8, 2
    attention = RelativeAttention(width, heads, dropout=0.0).eval()
    torch.nn.init.normal_(attention.content_bias)
    torch.nn.init.normal_(attention.position_bias)
    x = torch.randn(1, frames, width)
    positions = relative_positions(frames, width, x.device)
    got = attention(x, positions, torch.ones(1, frames, 1, dtype=torch.bool))

    with torch.no_grad():
        y = attention.norm(x)[0]
        part = width // heads
        attended = torch.zeros(frames, width)
        for head in range(heads):
            cut = slice(head * part, (head + 1) * part)
            q, k, v = (layer(y)[:, cut] for layer in (attention.query, attention.key, attention.value))
            p = attention.position(positions)[:, cut]
            for i in range(frames):
                scores = torch.stack(
                    [
                        (q[i] + attention.content_bias[cut]) @ k[j]
                        + (q[i] + attention.position_bias[cut]) @ p[frames - 1 - (i - j)]
                        for j in range(frames)
                    ]
                )
                attended[i, cut] = (scores / math.sqrt(part)).softmax(0) @ v
        torch.testing.assert_close(got[0], attention.output(attended), atol=1e-5, rtol=1e-5)


def test_padding_is_not_attended() -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(8, 2, dropout=0.0).eval()
    x = torch.randn(1, 9, 8)
    padded = torch.cat((x[:, :5], torch.full((1, 4, 8), 50.0)), dim=1)
    alone = attention(x[:, :5], relative_positions(5, 8, x.device), torch.ones(1, 5, 1, dtype=torch.bool))
    batched = attention(padded, relative_positions(9, 8, x.device), valid_frames(torch.tensor([5]), 9))
    torch.testing.assert_close(batched[:, :5], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[9, 9], [9, 4]])
def test_with_dropout_it_is_the_same_product(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing happens to be dropped, output and gradients are those of attention without dropout."""
    monkeypatch.setattr(attention_module, "keep_mask", lambda x, p: torch.ones_like(x))
    torch.manual_seed(0)
    plain, dropping = RelativeAttention(8, 2, dropout=0.0), RelativeAttention(8, 2, dropout=0.5)
    torch.nn.init.normal_(plain.position_bias)
    dropping.load_state_dict(plain.state_dict())
    dropping.dropout.forward = lambda x: x
    x, valid = torch.randn(2, 9, 8), valid_frames(torch.tensor(lengths), 9)
    found = []
    for attention in (plain, dropping):
        inputs = x.clone().requires_grad_(), relative_positions(9, 8, x.device).requires_grad_()
        out = attention(*inputs, valid)
        found.append([out, *torch.autograd.grad(out.square().sum(), [*inputs, *attention.parameters()])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_dropout_drops_shares_of_attention() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 50, 4)
    scores = torch.zeros(1, 2, 50, 50)
    ones = torch.ones_like(value)
    drawn = _attended(query, key, ones, scores, 0.5, 0.5)
    assert drawn.std() > 0.05
    assert drawn.mean().item() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(_attended(query, key, ones, scores, 0.0, 0.5), ones)


def test_position_scores_have_the_gradient_of_their_parts() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 5, 10, dtype=torch.float64, requires_grad=True)
    hidden = torch.zeros(2, 1, 1, 5, dtype=torch.bool)
    hidden[1, ..., 3:] = True

    def shares(scores: torch.Tensor) -> torch.Tensor:
        return _position_scores(scores, hidden).softmax(3)

    assert torch.autograd.gradcheck(shares, scores)
    with torch.no_grad():
        assert torch.equal(shares(scores), relative_shift(scores).masked_fill(hidden, -torch.inf).softmax(3))

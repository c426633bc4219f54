import math

import pytest
import torch

from nibble.model.attention import RelativeAttention, relative_positions, relative_shift
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

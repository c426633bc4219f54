import torch
from tiny_transducer import tiny_config

from nibble.model.attention import relative_positions
from nibble.model.block import ConformerBlock


def test_block_is_equation_one() -> None:
    torch.manual_seed(0)
    block = ConformerBlock(tiny_config()).eval()
    x, positions, valid = (
        torch.randn(1, 6, 16),
        relative_positions(6, 16, torch.device("cpu")),
        torch.ones(1, 6, 1, dtype=torch.bool),
    )
    y = x + block.feed_forward1(x, valid) / 2
    y = y + block.attention(y, positions, valid)
    y = y + block.convolution(y, valid)
    y = y + block.feed_forward2(y, valid) / 2
    torch.testing.assert_close(block(x, positions, valid), block.norm(y))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    block = ConformerBlock(tiny_config(dropout=0.5))
    x, positions, valid = (
        torch.randn(1, 6, 16),
        relative_positions(6, 16, torch.device("cpu")),
        torch.ones(1, 6, 1, dtype=torch.bool),
    )
    assert not torch.equal(block(x, positions, valid), block(x, positions, valid))
    block.eval()
    assert torch.equal(block(x, positions, valid), block(x, positions, valid))

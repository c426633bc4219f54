import torch
import torch.nn.functional as F

from nibble.model.feed_forward import FeedForward
from nibble.model.padding import valid_frames


def test_feed_forward_is_two_products_around_silu() -> None:
    torch.manual_seed(0)
    module = FeedForward(width=6, inner_width=24, dropout=0.0)
    assert module.expansion.weight.shape == (24, 6)
    x = torch.randn(2, 5, 6)
    want = module.projection(F.silu(module.expansion(module.norm(x))))
    torch.testing.assert_close(module(x, torch.ones(2, 5, 1, dtype=torch.bool)), want)


def test_products_see_zeros_in_padding() -> None:
    module = FeedForward(width=6, inner_width=24, dropout=0.0)
    seen = []
    for layer in (module.expansion, module.projection):
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(torch.full((1, 5, 6), 9.0), valid_frames(torch.tensor([3]), 5))
    assert [x[:, 3:].abs().max().item() for x in seen] == [0, 0]

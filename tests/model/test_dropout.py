import pytest
import torch

from nibble.model.dropout import Dropout, keep_mask


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_and_the_mean(p: float) -> None:
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(3, 333, 101), p)
    assert (mask == 0).float().mean().item() == pytest.approx(p, abs=5e-3)
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    assert mask.mean().item() == pytest.approx(1, abs=0.02)


def test_neighbours_are_independent() -> None:
    torch.manual_seed(0)
    dropped = (keep_mask(torch.empty(400_000), 0.5) == 0).float() - 0.5
    for distance in (1, 2, 3, 4):  # four draws come from one number
        assert abs((dropped[distance:] * dropped[:-distance]).mean().item()) < 2e-3


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 7)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_shapes_and_types(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    out = Dropout(0.3)(x)
    assert (out.shape, out.dtype) == (x.shape, dtype)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # of ones: the mask


def test_draws_follow_the_seed() -> None:
    layer, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(3)
    first = layer(x)
    assert not torch.equal(first, layer(x))
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))


@pytest.mark.parametrize(("p", "value"), [(0.0, 1.0), (1.0, 0.0), (1e-9, 1.0), (1 - 1e-9, 0.0)])
def test_nothing_or_all_is_dropped(p: float, value: float) -> None:
    assert Dropout(p)(torch.ones(50)).tolist() == [value] * 50


def test_evaluation_drops_nothing() -> None:
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x

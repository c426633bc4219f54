import pytest
import torch

from nibble.model.padding import MaskedBatchNorm, valid_frames


def test_valid_frames() -> None:
    assert valid_frames(torch.tensor([2, 0, 3]), 3)[..., 0].tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("affine", [True, False])
def test_statistics_are_those_of_torch_on_the_real_frames(affine: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(4, affine=affine), torch.nn.BatchNorm1d(4, affine=affine)
    if affine:
        for norm in (ours, theirs):
            norm.weight.data = torch.tensor([1.0, 2.0, 0.5, -1.0])
            norm.bias.data = torch.tensor([0.0, 1.0, -1.0, 3.0])
    lengths = torch.tensor([5, 2, 7])
    valid = valid_frames(lengths, 7)
    real = valid[..., 0].bool()
    for _ in range(3):
        x = torch.randn(3, 7, 4) * 3 + 2
        x[~real] = 1e4
        mine, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
        got, want = ours(mine, valid)[real], theirs(reference[real])
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
        upstream = torch.randn_like(want)
        got.backward(upstream)
        want.backward(upstream)
        torch.testing.assert_close(mine.grad, reference.grad, atol=1e-5, rtol=1e-4)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-5, rtol=1e-5)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x, valid)[real], theirs(x[real]), atol=1e-4, rtol=1e-5)


def test_one_real_frame_has_no_variance() -> None:
    norm = MaskedBatchNorm(4)
    y = norm(torch.randn(1, 3, 4), valid_frames(torch.tensor([1]), 3))
    assert y[0, 0].abs().max() == 0
    assert norm.running_var.isfinite().all()

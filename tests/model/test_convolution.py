import pytest
import torch
import torch.nn.functional as F
from tiny_transducer import tiny_config

from nibble.model.convolution import ConvolutionModule, DepthwiseConv
from nibble.model.padding import valid_frames


@pytest.mark.parametrize("frames", [1, 4, 33])
def test_depthwise_is_conv1d(frames: int) -> None:
    torch.manual_seed(0)
    conv = DepthwiseConv(6, kernel=5)
    x = torch.randn(3, frames, 6).transpose(1, 2)
    want = F.conv1d(x, conv.weight, conv.bias, padding=2, groups=6)
    torch.testing.assert_close(conv(x), want, atol=1e-6, rtol=1e-5)
    assert torch.autograd.gradcheck(conv.double(), x[:1, :, :4].double().requires_grad_())


def test_depthwise_input_is_zero_in_padding() -> None:
    """An activation scale over the whole utterance must not see what padding holds."""
    module = ConvolutionModule(tiny_config(width=6, kernel=5)).eval()
    seen = {}
    for name in ("pointwise1", "depthwise", "pointwise2"):
        getattr(module, name).register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    module(torch.full((1, 8, 6), 9.0), valid_frames(torch.tensor([5]), 8))
    assert seen["depthwise"][:, :, 5:].abs().max() == 0
    assert seen["pointwise1"][:, 5:].abs().max() == 0
    assert seen["pointwise2"][:, 5:].abs().max() == 0

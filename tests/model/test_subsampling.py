"""Lengths, padding and gradients of each kind of subsampling."""

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nibble.model.subsampling import DepthwiseSubsampling, PaddedSubsampling, Subsampling

KINDS: dict[str, Callable[[], Subsampling]] = {
    "conv": lambda: Subsampling(20, 4, 6),
    "padded": lambda: PaddedSubsampling(20, 4, 6),
    "depthwise 4": lambda: DepthwiseSubsampling(20, 4, 6, factor=4),
    "depthwise 8": lambda: DepthwiseSubsampling(20, 4, 6, factor=8),
}


@pytest.fixture(params=KINDS)
def subsampling(request: pytest.FixtureRequest) -> Subsampling:
    torch.manual_seed(0)
    return KINDS[request.param]()


@pytest.mark.parametrize("frames", [1, 2, 6, 7, 8, 10, 11, 12, 47, 48, 49, 50, 101])
def test_length_is_the_length_of_the_output(subsampling: Subsampling, frames: int) -> None:
    out, lengths = subsampling(torch.randn(2, frames, 20), torch.tensor([frames, max(1, frames // 2)]))
    assert out.shape == (2, subsampling.output_length(frames), 6)
    assert lengths.tolist() == [subsampling.output_length(frames), subsampling.output_length(max(1, frames // 2))]


@pytest.mark.parametrize(("kind", "frames"), [("conv", 24), ("padded", 25), ("depthwise 4", 25), ("depthwise 8", 13)])
def test_encoded_frames_of_a_second(kind: str, frames: int) -> None:
    subsampling = KINDS[kind]()
    assert subsampling.output_length(100) == frames
    assert subsampling.output_length(1) == subsampling.output_length(subsampling.min_frames) == 1


@pytest.mark.parametrize("frames", [1, 5, 7, 9, 20])
def test_an_utterance_does_not_see_the_padding_behind_it(subsampling: Subsampling, frames: int) -> None:
    features = torch.zeros(1, 40, 20)
    features[:, :frames] = torch.randn(frames, 20)
    alone, length = subsampling(features[:, :frames], torch.tensor([frames]))
    batched, _ = subsampling(features, torch.tensor([frames]))
    torch.testing.assert_close(batched[:, : int(length)], alone[:, : int(length)])


def test_padding_is_zero_before_each_product(subsampling: Subsampling) -> None:
    """An activation scale taken over an utterance must be that of its real frames."""
    layers = [layer for layer in subsampling.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    for layer in layers:
        torch.nn.init.ones_(layer.bias)
    seen: dict[torch.nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, args: seen[layer].append(args[0]))
    features = torch.zeros(1, 40, 20)
    features[:, :12] = torch.randn(12, 20)
    subsampling(features, torch.tensor([12]))
    subsampling(features[:, :12], torch.tensor([12]))
    for together, alone in seen.values():
        torch.testing.assert_close(together.abs().max(), alone.abs().max())
        torch.testing.assert_close(together.abs().sum(), alone.abs().sum())


def test_padding_passes_no_gradient_on(subsampling: Subsampling) -> None:
    features = torch.randn(2, 40, 20)
    features[0, 15:] = 0.0
    out, lengths = subsampling(features, torch.tensor([15, 40]))
    (out[:1, : lengths[0]].square().sum() + out[1:].square().sum()).backward()
    together = [parameter.grad.clone() for parameter in subsampling.parameters()]
    subsampling.zero_grad()
    for row, frames in enumerate((15, 40)):
        subsampling(features[row : row + 1, :frames], torch.tensor([frames]))[0].square().sum().backward()
    for found, parameter in zip(together, subsampling.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


def test_lengths_take_two_operations_a_convolution() -> None:
    """On a GPU each is a launch, which costs more than the sum."""
    done: list[str] = []

    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            done.append(func.__name__.split(".")[0])
            return func(*args, **(kwargs or {}))

    lengths = torch.tensor([50, 100])
    for kind, convolutions in (("conv", 2), ("depthwise 8", 3)):
        done.clear()
        with Recorded():
            KINDS[kind]().output_length(lengths)
        assert done[-2 * convolutions :] == ["add", "floor_divide"] * convolutions, kind

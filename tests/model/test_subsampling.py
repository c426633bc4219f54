import pytest
import torch

from nibble.model.subsampling import MIN_FRAMES, Subsampling, output_length


@pytest.mark.parametrize("frames", [1, 2, 6, 7, 8, 10, 11, 12, 47, 48, 49, 50, 101])
def test_length_is_the_length_of_the_output(frames: int) -> None:
    subsampling = Subsampling(mel_bins=20, channels=4, width=6)
    out, lengths = subsampling(torch.randn(2, frames, 20), torch.tensor([frames, max(1, frames // 2)]))
    assert out.shape == (2, output_length(frames), 6)
    assert lengths.tolist() == [output_length(frames), output_length(max(1, frames // 2))]


def test_one_second_is_twenty_four_frames() -> None:
    assert output_length(100) == 24
    assert output_length(1) == output_length(MIN_FRAMES) == 1


@pytest.mark.parametrize("frames", [1, 5, 7, 9, 20])
def test_an_utterance_does_not_see_the_padding_behind_it(frames: int) -> None:
    torch.manual_seed(0)
    subsampling = Subsampling(mel_bins=20, channels=4, width=6)
    features = torch.zeros(1, 40, 20)
    features[:, :frames] = torch.randn(frames, 20)
    alone, length = subsampling(features[:, :frames], torch.tensor([frames]))
    batched, _ = subsampling(features, torch.tensor([frames]))
    torch.testing.assert_close(batched[:, : int(length)], alone[:, : int(length)])


def test_padding_is_zero_before_each_product() -> None:
    """An activation scale taken over an utterance must be that of its real frames."""
    subsampling = Subsampling(mel_bins=20, channels=4, width=6)
    torch.nn.init.ones_(subsampling.conv1.bias)
    torch.nn.init.ones_(subsampling.conv2.bias)
    seen = []
    for layer in (subsampling.conv2, subsampling.output):
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features = torch.zeros(1, 40, 20)
    features[:, :12] = torch.randn(12, 20)
    subsampling(features, torch.tensor([12]))
    after_conv1, after_conv2 = seen
    assert after_conv1[:, :, :5].abs().max() > 0
    assert after_conv1[:, :, 5:].abs().max() == 0  # the window of frame 5 begins inside the utterance
    assert after_conv2[:, 2:].abs().max() == 0


def test_padding_passes_no_gradient_on() -> None:
    torch.manual_seed(0)
    module = Subsampling(20, 3, 5)
    features = torch.randn(2, 40, 20)
    features[0, 15:] = 0.0
    out, lengths = module(features, torch.tensor([15, 40]))
    (out[:1, : lengths[0]].square().sum() + out[1:].square().sum()).backward()
    together = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    for row, frames in enumerate((15, 40)):
        module(features[row : row + 1, :frames], torch.tensor([frames]))[0].square().sum().backward()
    for found, parameter in zip(together, module.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)

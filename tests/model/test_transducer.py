from collections.abc import Callable

import pytest
import torch
from padded_training import assert_padding_changes_no_statistics
from tiny_transducer import MEL_BINS

from nibble.composition import training_config
from nibble.features.options import FeatureConfig
from nibble.model.loss import transducer_loss
from nibble.model.options import ModelConfig
from nibble.model.transducer import Transducer


def from_conf(name: str) -> ModelConfig:
    return training_config([f"model={name}", "run_dir=runs/none"]).model


@pytest.mark.parametrize(
    ("name", "millions", "tolerance"),
    [
        ("conformer_xs", 1.0, 0.15),
        ("conformer_s", 10.3, 0.02),
        ("conformer_m", 30.7, 0.02),
        ("conformer_l", 118.8, 0.02),
        ("conformer_stream_xs", 1.0, 0.15),
        ("conformer_stream_s", 9.7, 0.02),
        ("conformer_stream_l", 117.0, 0.02),
        ("fastconformer_s", 14.2, 0.02),
        ("fastconformer_l", 114.1, 0.02),  # Rekesh et al. (2023), Table 1: 114 and 616 with another vocabulary
        ("fastconformer_xl", 616.7, 0.02),
    ],
)
def test_sizes_are_those_of_the_paper_and_of_the_files(name: str, millions: float, tolerance: float) -> None:
    with torch.device("meta"):
        model = Transducer(from_conf(name), FeatureConfig(), vocabulary_size=1024)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=tolerance)


@pytest.mark.parametrize(("frames", "labels"), [(1, 1), (1, 0), (7, 1), (8, 3), (9, 2), (63, 5), (64, 1)])
def test_shapes(make_tiny: Callable[..., Transducer], frames: int, labels: int) -> None:
    model = make_tiny()
    logits, encoded, lengths = model(
        torch.randn(2, frames, MEL_BINS),
        torch.tensor([frames, frames]),
        torch.randint(1, 8, (2, labels)),
        torch.tensor([labels, labels]),
    )
    expected = model.encoder.output_length(frames)
    assert encoded.shape == (2, expected, 16)
    assert lengths.tolist() == [expected] * 2
    assert logits.shape == (2, expected, labels + 1, 8)
    loss = transducer_loss(logits, lengths, torch.randint(1, 8, (2, labels)), torch.tensor([labels, labels]))
    assert loss.isfinite().all()


def test_padding_changes_nothing(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny(layers=3)
    lengths, label_lengths = [50, 1, 23, 8, 36], [4, 1, 0, 3, 2]
    utterances = [torch.randn(length, MEL_BINS) * 4 - 8 for length in lengths]
    texts = [torch.randint(1, 8, (length,)) for length in label_lengths]
    features = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    logits, encoded, frames = model(features, torch.tensor(lengths), labels, torch.tensor(label_lengths))
    losses = transducer_loss(logits, frames, labels, torch.tensor(label_lengths))
    for row, (utterance, text) in enumerate(zip(utterances, texts, strict=True)):
        one = model(
            utterance.unsqueeze(0), torch.tensor([len(utterance)]), text.unsqueeze(0), torch.tensor([len(text)])
        )
        assert int(one[2]) == frames[row]
        torch.testing.assert_close(encoded[row, : frames[row]], one[1][0], atol=1e-4, rtol=0)
        torch.testing.assert_close(logits[row, : frames[row], : len(text) + 1], one[0][0], atol=1e-4, rtol=0)
        loss = transducer_loss(one[0], one[2], text.unsqueeze(0), torch.tensor([len(text)]))
        torch.testing.assert_close(losses[row], loss[0], atol=1e-4, rtol=1e-5)


def test_padding_changes_no_statistics_in_training(make_tiny: Callable[..., Transducer]) -> None:
    features = torch.randn(2, 30, MEL_BINS)
    features[1, 19:] = 0
    assert_padding_changes_no_statistics(make_tiny, features, extra=25)


def test_every_parameter_learns(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny().train()
    labels, sizes = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    logits, _, frames = model(torch.randn(1, 40, MEL_BINS), torch.tensor([40]), labels, sizes)
    transducer_loss(logits, frames, labels, sizes).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # The softmax cancels what is equal for all keys, and BatchNorm what is equal for all frames.
        if not name.endswith(("key.bias", "depthwise.bias")):
            assert parameter.grad.abs().max() > 0, name


def test_a_few_steps_learn_one_utterance(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny().train()
    labels, sizes = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    features, lengths = torch.randn(1, 40, MEL_BINS), torch.tensor([40])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        logits, _, frames = model(features, lengths, labels, sizes)
        loss = transducer_loss(logits, frames, labels, sizes).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_bfloat16_autocast_stays_close(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny()
    features, lengths = torch.randn(2, 60, MEL_BINS), torch.tensor([60, 41])
    labels, sizes = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    logits, _, frames = model(features, lengths, labels, sizes)
    with torch.autocast("cpu", torch.bfloat16):
        half, encoded, _ = model(features, lengths, labels, sizes)
        assert half.dtype == encoded.dtype == torch.bfloat16
        loss = transducer_loss(half, frames, labels, sizes)
    torch.testing.assert_close(loss, transducer_loss(logits, frames, labels, sizes), rtol=0.05, atol=0)

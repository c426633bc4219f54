"""One step of training with more and with less padding."""

from collections.abc import Callable

import torch
from torch import Tensor

from nibble.model.loss import transducer_loss
from nibble.model.transducer import Transducer


def assert_padding_changes_no_statistics(make: Callable[[], Transducer], features: Tensor, extra: int) -> None:
    """Statistics and gradients of two utterances, the second of 19 frames, are the same with `extra` empty frames."""
    labels, sizes = torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])
    lengths = torch.tensor([features.size(1), 19])
    results = []
    for frames in (0, extra):
        model = make().train()
        padded = torch.nn.functional.pad(features, (0, 0, 0, frames))
        logits, _, encoded_lengths = model(padded, lengths, labels, sizes)
        transducer_loss(logits, encoded_lengths, labels, sizes).sum().backward()
        results.append((dict(model.named_buffers()), {name: p.grad for name, p in model.named_parameters()}))
    for got, want in zip(results[1], results[0], strict=True):
        for name in want:
            torch.testing.assert_close(got[name], want[name], atol=1e-4, rtol=1e-3, msg=name)

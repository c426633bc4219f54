import math
from functools import cache

import pytest
import torch
from torch import Tensor
from torchaudio.functional import rnnt_loss

from nibble.errors import UserError
from nibble.model import loss
from nibble.model.loss import transducer_loss


def by_recursion(logits: Tensor, labels: list[int]) -> float:
    """Graves (2012), equation 16, for one utterance: logits (T', U + 1, V)."""
    log_probs = logits.double().log_softmax(-1)
    frames = logits.size(0)

    @cache
    def alpha(t: int, u: int) -> float:
        if t == u == 0:
            return 0.0
        ways = []
        if t:
            ways.append(alpha(t - 1, u) + log_probs[t - 1, u, 0].item())
        if u:
            ways.append(alpha(t, u - 1) + log_probs[t, u - 1, labels[u - 1]].item())
        return torch.tensor(ways, dtype=torch.double).logsumexp(0).item()

    return -(alpha(frames - 1, len(labels)) + log_probs[-1, len(labels), 0].item())


def test_loss_is_the_sum_over_alignments() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 6, 4, 5) * 3
    labels = torch.randint(1, 5, (4, 3))
    frames, lengths = torch.tensor([6, 4, 1, 5]), torch.tensor([2, 3, 3, 0])
    found = transducer_loss(logits, frames, labels, lengths)
    want = [
        by_recursion(logits[row, : frames[row], : lengths[row] + 1], labels[row, : lengths[row]].tolist())
        for row in range(4)
    ]
    assert found.tolist() == pytest.approx(want, abs=1e-4)


def test_padding_of_logits_and_labels_is_ignored() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 3, 5), torch.tensor([[2, 4]])
    alone = transducer_loss(logits, torch.tensor([3]), labels, torch.tensor([2]))
    padded_logits = torch.nn.functional.pad(logits, (0, 0, 0, 2, 0, 4), value=100.0)
    padded = transducer_loss(padded_logits, torch.tensor([3]), torch.tensor([[2, 4, 1, 3]]), torch.tensor([2]))
    torch.testing.assert_close(padded, alone)


def test_no_label_at_all() -> None:
    logits = torch.randn(2, 3, 1, 4)
    loss = transducer_loss(logits, torch.tensor([3, 2]), torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0]))
    blanks = -logits.log_softmax(-1)[:, :, 0, 0]
    torch.testing.assert_close(loss, torch.stack((blanks[0].sum(), blanks[1, :2].sum())))


def test_half_precision_logits_have_a_float32_loss_under_autocast() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 50, 20, 8)
    labels, sizes = torch.randint(1, 8, (1, 19)), (torch.tensor([50]), torch.tensor([19]))
    with torch.autocast("cpu", torch.bfloat16):
        loss = transducer_loss(logits.bfloat16(), sizes[0], labels, sizes[1])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, transducer_loss(logits.bfloat16().float(), sizes[0], labels, sizes[1]))
    assert math.isfinite(loss.item())


def test_torchaudio_gets_no_lattice_with_a_single_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CUDA kernel would leave their losses and gradients unwritten."""
    torch.manual_seed(0)
    frames, lengths = torch.tensor([6, 1, 4, 1, 5]), torch.tensor([2, 3, 3, 0, 0])
    logits, labels = torch.randn(5, 6, 4, 5, requires_grad=True), torch.randint(1, 5, (5, 3))
    want = loss.rnnt_loss(logits, labels.int(), frames.int(), lengths.int(), blank=0, reduction="none")
    (slopes,) = torch.autograd.grad((want * torch.arange(1, 6)).sum(), logits)
    seen: list[tuple[list[int], list[int]]] = []

    def torchaudio(logits: Tensor, labels: Tensor, frames: Tensor, lengths: Tensor, **options: object) -> Tensor:
        seen.append((frames.tolist(), lengths.tolist()))
        return rnnt_loss(logits, labels, frames, lengths, **options)

    monkeypatch.setattr(loss, "rnnt_loss", torchaudio)
    found = transducer_loss(logits, frames, labels, lengths)
    assert seen == [([6, 4], [2, 3])]
    torch.testing.assert_close(found, want)
    (gradient,) = torch.autograd.grad((found * torch.arange(1, 6)).sum(), logits)
    torch.testing.assert_close(gradient, slopes)


def test_more_logits_than_torchaudio_counts() -> None:
    logits = torch.zeros(()).expand(2, 2**14, 2**6, 2**10)  # 2^31, in 4 bytes
    with pytest.raises(UserError, match=r"at most 2,147,483,647 logits.* 2,147,483,648 \(2 utterances x 16384 frames"):
        transducer_loss(logits, torch.full((2,), 2**14), torch.ones(2, 2**6 - 1), torch.full((2,), 2**6 - 1))

"""The transducer loss (Graves, 2012, section 2.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import rnnt_loss

from nibble.conventions import BLANK
from nibble.errors import UserError

MAX_LOGITS = 2**31 - 1  # torchaudio computes the position of a logit as an int, on CPU and CUDA


def transducer_loss(logits: Tensor, encoded_lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """Negative log-probability (B,) of the labels, summed over all alignments, in nats; by torchaudio.

    Float32 whatever the autocast: in half precision the sum over alignments is unstable.
    A frame may emit several labels, so an utterance with more labels than frames has a finite loss (CTC has none),
    and one without labels has the loss of blanks only.

    Args:
        logits: (B, T', U + 1, V), before the softmax.
        encoded_lengths: (B,)
        labels: (B, U)
        label_lengths: (B,)

    Raises:
        UserError: there are 2^31 logits or more.
    """
    with torch.autocast(logits.device.type, enabled=False):
        # On CUDA, torchaudio leaves losses and gradients of a lattice with a single path as they were in memory.
        single = (encoded_lengths == 1) | (label_lengths == 0)
        if not single.any():
            return _torchaudio_loss(logits, encoded_lengths, labels, label_lengths)
        losses = []
        groups = single.nonzero()[:, 0], (~single).nonzero()[:, 0]
        for rows, loss in zip(groups, (_single_path_loss, _torchaudio_loss), strict=True):
            if len(rows):
                losses.append(loss(logits[rows], encoded_lengths[rows], labels[rows], label_lengths[rows]))
        return torch.cat(losses)[torch.cat(groups).argsort()]


def _torchaudio_loss(logits: Tensor, encoded_lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    # torchaudio insists on tensors as long as the longest utterance, and on int32.
    frames, positions = int(encoded_lengths.max()), int(label_lengths.max())
    logits = logits[:, :frames, : positions + 1]
    if logits.numel() > MAX_LOGITS:
        utterances, frames, positions, vocabulary = logits.shape
        raise UserError(
            f"torchaudio's transducer loss takes at most {MAX_LOGITS:,} logits, and this batch has {logits.numel():,} "
            f"({utterances} utterances x {frames} frames x {positions} label positions x {vocabulary} labels); "
            "lower hardware.batch_duration_s, or give loss.fused=true and distill.posterior_weight=0, "
            "with which the logits never exist as a whole"
        )
    return rnnt_loss(
        logits.float().contiguous(),
        labels[:, :positions].int().contiguous(),
        encoded_lengths.int(),
        label_lengths.int(),
        blank=BLANK,
        reduction="none",
    )


def _single_path_loss(logits: Tensor, encoded_lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """The loss of utterances of one frame, or without labels: all labels in the first frame, then blanks."""
    frames, positions = logits.shape[1:3]
    first = logits[:, 0].float().log_softmax(-1)  # (B, U + 1, V)
    label = first.gather(2, F.pad(labels.long(), (0, positions - labels.size(1))).unsqueeze(2)).squeeze(2)
    last = label_lengths.view(-1, 1, 1, 1).expand(-1, frames, 1, logits.size(3))
    blank = logits.gather(2, last).squeeze(2).float().log_softmax(-1)[..., BLANK]  # (B, T')
    is_label = torch.arange(positions, device=logits.device) < label_lengths.unsqueeze(1)
    is_frame = torch.arange(frames, device=logits.device) < encoded_lengths.unsqueeze(1)
    return -torch.where(is_label, label, 0).sum(1) - torch.where(is_frame, blank, 0).sum(1)

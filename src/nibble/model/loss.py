"""The transducer loss (Graves, 2012, section 2.4)."""

import torch
from torch import Tensor
from torchaudio.functional import rnnt_loss

from nibble.model.transducer import BLANK


def transducer_loss(logits: Tensor, encoded_lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """Negative log-probability (B,) of the labels, summed over all alignments, in nats.

    Float32 whatever the autocast: in half precision the sum over alignments is unstable.
    A frame may emit several labels, so an utterance with more labels than frames has a finite loss (CTC has none),
    and one without labels has the loss of blanks only.

    Args:
        logits: (B, T', U + 1, V), before the softmax.
        encoded_lengths: (B,)
        labels: (B, U)
        label_lengths: (B,)
    """
    with torch.autocast(logits.device.type, enabled=False):
        # torchaudio insists on tensors as long as the longest utterance, and on int32.
        frames, positions = int(encoded_lengths.max()), int(label_lengths.max())
        return rnnt_loss(
            logits[:, :frames, : positions + 1].float().contiguous(),
            labels[:, :positions].int().contiguous(),
            encoded_lengths.int(),
            label_lengths.int(),
            blank=BLANK,
            reduction="none",
        )

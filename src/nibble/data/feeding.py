"""What speech is read for: training, validation or evaluation."""

from collections.abc import Callable
from dataclasses import dataclass

from nibble.data.options import Condition
from nibble.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Feeding:
    """How one use of the speech differs from another.

    Args:
        tokenizer: of a trained model; None: it is learnt from the training transcripts.
        encoded_frames: computes the number of encoded frames from that of feature frames. It is given if the loss has a
            CTC term, which cannot learn from an utterance with fewer encoded frames than labels.
        processes: (rank, world size) of this process among those that train together.
        max_validation_utterances: how many utterances of the dev set `val_dataloader()` reads; None for all.
        keep_samples: whether a batch keeps the samples besides the features; needs features on the fly.
        condition: how evaluation changes the speech; needs features on the fly.
    """

    tokenizer: Tokenizer | None = None
    encoded_frames: Callable[[int], int] | None = None
    processes: tuple[int, int] = (0, 1)
    max_validation_utterances: int | None = None
    keep_samples: bool = False
    condition: Condition = Condition.unchanged

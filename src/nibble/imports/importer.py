"""The seam between other toolkits' checkpoints and float runs of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from nibble.data.tokenizer import Tokenizer
from nibble.features.options import FeatureConfig
from nibble.model.options import ModelConfig


@dataclass(frozen=True)
class Foreign:
    """A checkpoint of another toolkit: what it describes, and how to get its weights."""

    path: Path
    kind: str  # toolkit and class, as messages call it: "NeMo EncDecRNNTBPEModel"
    model: ModelConfig
    features: FeatureConfig
    tokenizer: Tokenizer | None  # with blank at 0; None: an encoder without labels
    origin: str  # source and licence, for the card
    weights: Callable[
        [], dict[str, Tensor]
    ]  # the state of our `Transducer`, float32, or of its encoder; reads the file

    @property
    def named(self) -> str:
        """`kind` with its article: "an icefall transducer_stateless"."""
        return f"{'an' if self.kind[0].lower() in 'aeiou' else 'a'} {self.kind}"


class Importer(Protocol):
    """Reads the checkpoints of one toolkit.

    Every implementation keeps these promises, and tests/imports checks them:

    - `recognises` looks at names and at the head of a file only. It is true for at most one importer.
    - `describe` reads the description, not the weights. What our model cannot represent is refused by its name and
      value, with what to do instead.
    - The weights are complete: each tensor of the checkpoint is used, folded into another one or on the importer's
      short list of tensors without use, and each parameter of our model, or of its encoder, is filled. With them, our
      model gives the logits that the toolkit gives, or the encoded frames, within float rounding.
    - Nothing in the checkpoint is executed, and reading takes no more memory than its tensors.
    """

    def recognises(self, path: Path) -> bool:
        """Whether the file or folder is a checkpoint of this toolkit."""
        ...

    def describe(self, path: Path) -> Foreign:
        """The checkpoint at `path`, which `recognises` said yes to.

        Raises:
            UserError: it is damaged, or cannot be represented.
        """
        ...

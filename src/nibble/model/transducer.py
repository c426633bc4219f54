"""The whole network: encoder, predictor and joiner."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.conventions import BLANK
from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureKind
from nibble.model.conformer import ConformerEncoder
from nibble.model.ctc import CtcHead, LabelCount
from nibble.model.foundation import FoundationEncoder
from nibble.model.joiner import Joiner
from nibble.model.options import ModelConfig, Predictor
from nibble.model.predictor import LstmPredictor, StatelessPredictor, make_predictor
from nibble.model.searchable import LabelState
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.shapes import shapes_only


class Transducer(nn.Module):
    """A Conformer-Transducer (Graves, 2012; Gulati et al., 2020); a `Searchable`.

    With predictor=none it is a CTC network, whose label side only counts: `nibble.model.ctc`.

    Args:
        config: the sizes and kinds of its layers.
        features: what the encoder hears: mel bins, and how they are normalised.
        vocabulary_size: V, blank included.
    """

    def __init__(self, config: ModelConfig, features: FeatureConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.encoder = make_encoder(config, features)
        self.predictor: LstmPredictor | StatelessPredictor | LabelCount
        self.joiner: Joiner | CtcHead
        if config.predictor is Predictor.none:
            self.predictor, self.joiner = LabelCount(), CtcHead(config.width, vocabulary_size)
            return
        self.predictor = make_predictor(config, vocabulary_size)
        widths = config.width, config.predictor_width, config.joiner_width
        self.joiner = Joiner(*widths, vocabulary_size, config.joiner_activation, config.durations)

    @property
    def durations(self) -> int:
        """As `Searchable`."""
        return self.joiner.durations

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> encoded (B, T', D), encoded lengths (B,)."""
        return self.encoder(features, lengths)

    def predict(self, labels: Tensor) -> Tensor:
        """labels (B, U) -> predicted (B, U + 1, P); position u has seen the labels before u."""
        return self.predictor(F.pad(labels, (1, 0), value=BLANK))

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """encoded (B, T', D), predicted (B, U + 1, P) -> logits (B, T', U + 1, V + E)."""
        return self.joiner(encoded, predicted)

    def project(self, encoded: Tensor) -> Tensor:
        """encoded (B, T', D) -> (B, T', J)."""
        return self.joiner.project_encoder(encoded)

    def start_labels(self, rows: int, device: torch.device) -> LabelState:
        """As `Searchable`: the predictor has seen a blank, as `predict` has before the first label."""
        nothing = torch.full((rows,), BLANK, device=device)
        return self.append_label(nothing, LabelState(torch.empty(0), self.predictor.start(rows, device)))

    def append_label(self, label: Tensor, state: LabelState) -> LabelState:
        """As `Searchable`."""
        out, memory = self.predictor.step(label, state.memory)
        return LabelState(self.joiner.project_predictor(out), memory)

    def label_logits(self, frame: Tensor, state: LabelState) -> Tensor:
        """As `Searchable`."""
        return self.joiner.combine(frame, state.predicted)

    def forward(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        labels: Tensor,
        label_lengths: Tensor,  # noqa: ARG002 - padding after a label changes nothing before it
    ) -> tuple[Tensor, Tensor, Tensor]:
        """features (B, T, F), labels (B, U) -> logits (B, T', U + 1, V + E), encoded (B, T', D), its lengths (B,)."""
        encoded, lengths = self.encode(features, feature_lengths)
        return self.join(encoded, self.predict(labels)), encoded, lengths


def make_encoder(config: ModelConfig, features: FeatureConfig) -> ConformerEncoder | FoundationEncoder:
    """The encoder that the options ask for: of raw samples, of whole utterances, or streaming.

    Raises:
        UserError: it cannot hear these features.
    """
    if config.foundation is not None:
        return FoundationEncoder(config, features)
    if features.kind is FeatureKind.samples:
        raise UserError(
            f"model={config.name} cannot hear features=samples; give features=fbank, or model=wav2vec2_base"
        )
    if config.chunk_frames is None:
        return ConformerEncoder(config, features)
    return StreamingEncoder(config, features, config.chunk_frames)


def encoder_outline(config: ModelConfig, features: FeatureConfig) -> ConformerEncoder | FoundationEncoder:
    """As `make_encoder`, without weights: for its lengths and sizes."""
    with shapes_only():
        return make_encoder(config, features)

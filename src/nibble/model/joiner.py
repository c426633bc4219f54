"""The joiner: one distribution over labels for each frame and label position (Graves et al., 2013)."""

from torch import Tensor, nn

from nibble.model.options import Activation


class Joiner(nn.Module):
    """Linear(encoded) + Linear(predicted), tanh or ReLU, Linear. J is the joiner's width.

    Both projections stand apart from `combine`, so that decoding projects every frame once, before its loop. With
    durations, the logits of E durations stand behind those of V labels (Xu et al., 2023).
    """

    def __init__(
        self,
        encoder_width: int,
        predictor_width: int,
        width: int,
        vocabulary_size: int,
        activation: Activation = Activation.tanh,
        durations: int = 0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.vocabulary_size = vocabulary_size
        self.durations = durations
        self.encoder = nn.Linear(encoder_width, width)
        self.predictor = nn.Linear(predictor_width, width, bias=False)
        self.output = nn.Linear(width, vocabulary_size + durations)

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """(..., D) -> (..., J)."""
        return self.encoder(encoded)

    def project_predictor(self, predicted: Tensor) -> Tensor:
        """(..., P) -> (..., J)."""
        return self.predictor(predicted)

    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Projections (..., J) and (..., J) that broadcast -> logits (..., V + E)."""
        both = encoded + predicted  # changed in place: only the logits are larger
        return self.output(both.tanh_() if self.activation is Activation.tanh else both.relu_())

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """encoded (B, T', D), predicted (B, U + 1, P) -> logits (B, T', U + 1, V + E)."""
        return self.combine(self.project_encoder(encoded).unsqueeze(2), self.project_predictor(predicted).unsqueeze(1))

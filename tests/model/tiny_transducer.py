"""A transducer small enough to search exhaustively."""

from typing import Any

from nibble.features.options import FeatureConfig
from nibble.model.options import ModelConfig, Predictor

MEL_BINS = 20
FEATURES = FeatureConfig(mel_bins=MEL_BINS)


def tiny_config(predictor: Predictor = Predictor.stateless, **changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "name": "tiny",
        "width": 16,
        "layers": 2,
        "heads": 2,
        "kernel": 5,
        "dropout": 0.0,
        "predictor": predictor,
        "predictor_width": 12,
        "joiner_width": 14,
    }
    return ModelConfig(**(values | changes))

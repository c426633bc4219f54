from collections.abc import Callable

import pytest
import torch
from tiny_transducer import FEATURES, tiny_config

from nibble.model.options import Predictor
from nibble.model.transducer import Transducer


@pytest.fixture(params=[kind for kind in Predictor if kind is not Predictor.none], ids=lambda kind: kind.value)
def predictor_kind(request: pytest.FixtureRequest) -> Predictor:
    return request.param


@pytest.fixture
def make_tiny(predictor_kind: Predictor) -> Callable[..., Transducer]:
    """Builds the same random transducer for the same seed, with spread-out probabilities."""

    def make(vocabulary_size: int = 8, seed: int = 0, **changes: object) -> Transducer:
        torch.manual_seed(seed)
        model = Transducer(tiny_config(predictor_kind, **changes), FEATURES, vocabulary_size)
        with torch.no_grad():
            model.joiner.output.weight.mul_(6)
        return model.eval()

    return make

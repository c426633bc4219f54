import pytest
import torch

from nibble.model.joiner import Joiner
from nibble.model.options import Activation

FUNCTIONS = {Activation.tanh: torch.tanh, Activation.relu: torch.relu}


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_every_frame_meets_every_label_position(activation: Activation) -> None:
    torch.manual_seed(0)
    joiner = Joiner(encoder_width=4, predictor_width=3, width=5, vocabulary_size=7, activation=activation)
    encoded, predicted = torch.randn(2, 6, 4), torch.randn(2, 3, 3)
    logits = joiner(encoded, predicted)
    assert logits.shape == (2, 6, 3, 7)
    one = joiner.output(FUNCTIONS[activation](joiner.encoder(encoded[1, 4]) + joiner.predictor(predicted[1, 2])))
    torch.testing.assert_close(logits[1, 4, 2], one)


def test_inputs_are_left_alone_and_get_gradients() -> None:
    joiner = Joiner(encoder_width=4, predictor_width=3, width=5, vocabulary_size=7).double()
    encoded = torch.randn(1, 2, 4, dtype=torch.double, requires_grad=True)
    predicted = torch.randn(1, 3, 3, dtype=torch.double, requires_grad=True)
    projected = joiner.project_encoder(encoded[:, 0]), joiner.project_predictor(predicted[:, 0])
    kept = [part.clone() for part in projected]
    joiner.combine(*projected)
    assert all(torch.equal(part, copy) for part, copy in zip(projected, kept, strict=True))
    assert torch.autograd.gradcheck(joiner, (encoded, predicted))

from collections.abc import Callable

import torch

from nibble.model.predictor import LstmPredictor, StatelessPredictor
from nibble.model.transducer import Transducer


def test_steps_equal_the_whole(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny()
    labels = torch.randint(1, 8, (3, 6))
    whole = model.predict(labels)
    out, state = model.predictor.step(torch.zeros(3, dtype=torch.long), model.predictor.start(3, labels.device))
    torch.testing.assert_close(out, whole[:, 0])
    for position, label in enumerate(labels.T):
        out, state = model.predictor.step(label, state)
        torch.testing.assert_close(out, whole[:, position + 1])
    assert all(part.size(0) == 3 for part in state)


def test_state_reorders_by_its_first_dimension(make_tiny: Callable[..., Transducer]) -> None:
    predictor = make_tiny().predictor
    labels = torch.tensor([1, 2, 3])
    _, state = predictor.step(labels, predictor.start(3, labels.device))
    order = torch.tensor([2, 0])
    out, _ = predictor.step(torch.tensor([4, 5]), tuple(part.index_select(0, order) for part in state))
    _, single = predictor.step(torch.tensor([3]), predictor.start(1, labels.device))
    want, _ = predictor.step(torch.tensor([4]), single)
    torch.testing.assert_close(out[:1], want)


def test_a_label_is_not_seen_before_it_is_said(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny()
    labels = torch.tensor([[1, 2, 3, 4]])
    changed = torch.tensor([[1, 2, 3, 5]])
    assert torch.equal(model.predict(labels)[:, :4], model.predict(changed)[:, :4])
    assert not torch.equal(model.predict(labels)[:, 4], model.predict(changed)[:, 4])


def test_stateless_forgets_beyond_its_context() -> None:
    predictor = StatelessPredictor(vocabulary_size=8, embedding_width=4, width=5, context=2)
    out = predictor(torch.tensor([[1, 2, 3, 4], [5, 6, 3, 4]]))
    assert torch.equal(out[0, 3], out[1, 3])
    assert not torch.equal(out[0, 2], out[1, 2])


def test_layers_of_lstms_step_as_the_whole() -> None:
    torch.manual_seed(0)
    predictor = LstmPredictor(vocabulary_size=8, embedding_width=4, width=5, layers=3)
    labels = torch.randint(1, 8, (2, 6))
    reference = torch.nn.LSTM(4, 5, num_layers=3, batch_first=True)
    for number, lstm in enumerate(predictor.layers):
        for name, parameter in lstm.named_parameters():
            getattr(reference, name.replace("_l0", f"_l{number}")).data = parameter.data
    whole = predictor(labels)
    torch.testing.assert_close(whole, reference(predictor.embedding(labels))[0])
    state = predictor.start(2, labels.device)
    for position, label in enumerate(labels.T):
        out, state = predictor.step(label, state)
        torch.testing.assert_close(out, whole[:, position])


def test_without_relu_a_stateless_predictor_is_linear() -> None:
    torch.manual_seed(0)
    predictor = StatelessPredictor(vocabulary_size=8, embedding_width=4, width=5, context=2, linear=True)
    labels = torch.randint(1, 8, (1, 9))
    out = predictor(labels)
    assert out.min() < 0
    both = predictor.embedding(labels[0, 3:5]).flatten()
    torch.testing.assert_close(out[0, 4], predictor.projection(both))

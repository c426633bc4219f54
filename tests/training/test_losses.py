"""The contract of the seam `Loss`, of every implementation."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from example_batch import random_batch
from torch import Tensor, nn

from nibble.data.batch import Batch
from nibble.model.ctc import CtcHead, LabelCount
from nibble.model.joiner import Joiner
from nibble.model.options import Predictor
from nibble.model.transducer import Transducer
from nibble.training import distillation
from nibble.training.distillation import Taught
from nibble.training.losses import Loss, WithCtc, ctc, encode, fused, of_labels, plain
from nibble.training.options import DistillConfig, LossConfig
from nibble.training.teacher import FloatBranch

LABELS = 9


class Mirror(FloatBranch):
    """A teacher with the weights of the student."""

    def teaches(self, precision):
        return True

    def listening(self, student):
        class Inside(SimpleNamespace):
            def __enter__(self):
                return student

            def __exit__(self, *_):
                return False

        return Inside()


@pytest.fixture
def network(make_config) -> Transducer:
    torch.manual_seed(0)
    config = make_config("model.dropout=0")
    return Transducer(config.model, config.features, LABELS)


WAYS = {"fused": fused, "plain": plain, "taught": Taught(fused, Mirror(), DistillConfig("self")), "CTC alone": ctc}


@pytest.fixture(
    params=["fused", "plain", "fused with CTC", "plain with CTC", "taught", "taught with CTC", "CTC alone", "durations"]
)
def loss(request: pytest.FixtureRequest, network: Transducer) -> Loss:
    torch.manual_seed(1)
    way, _, beside = request.param.partition(" with ")
    if way == "CTC alone":
        network.predictor, network.joiner = LabelCount(), CtcHead(network.encoder.width, LABELS)
    if way == "durations":
        network.joiner = Joiner(network.encoder.width, 32, 32, LABELS, durations=3)
        return fused
    head = nn.Linear(network.encoder.width, LABELS)
    return WithCtc(WAYS[way], head, 0.3) if beside else WAYS[way]


def speech() -> Batch:
    torch.manual_seed(2)
    return random_batch()


def value(loss: Loss, network: Transducer, batch: Batch, labels: Tensor | int = 1) -> float:
    return float(loss(network, encode(network, batch, labels)).loss.detach())


def test_it_is_a_scalar_in_nats_per_label_with_named_scalar_terms(loss: Loss, network: Transducer) -> None:
    found = loss(network, encode(network.eval(), speech(), torch.tensor(5)))
    assert found.loss.shape == ()
    assert found.terms.keys() & {"transducer", "ctc"}
    assert all(term.shape == () and torch.isfinite(term) for term in found.terms.values())
    assert float(found.loss) == pytest.approx(value(loss, network, speech()) / 5)


def test_padding_changes_nothing(loss: Loss, network: Transducer) -> None:
    batch = speech()
    longer = replace(
        batch,
        features=torch.cat([batch.features, torch.full((2, 24, 80), 9.0)], 1),
        labels=torch.cat([batch.labels, torch.full((2, 2), 7)], 1),
    )
    network.eval()
    assert value(loss, network, longer) == pytest.approx(value(loss, network, batch), rel=1e-5)


def test_its_gradient_reaches_the_network(loss: Loss, network: Transducer) -> None:
    loss(network, encode(network.train(), speech())).loss.backward()
    for part in (network.encoder, network.predictor, network.joiner):
        assert not list(part.parameters()) or any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


def test_both_ways_to_compute_the_transducer_loss_agree(network: Transducer) -> None:
    encoded = encode(network.eval(), speech())
    one, other = fused(network, encoded), plain(network, encoded)
    assert float(one.loss) == pytest.approx(float(other.loss), rel=1e-5)
    assert one.logits is None
    assert other.logits is not None
    assert other.logits.shape[-1] == LABELS


def test_the_network_and_the_options_choose_the_loss(make_config) -> None:
    model = make_config().model
    assert of_labels(model, LossConfig()) is fused
    assert of_labels(model, LossConfig(fused=False)) is plain
    assert of_labels(replace(model, predictor=Predictor.none), LossConfig()) is ctc


def test_a_teacher_that_is_the_student_adds_nothing(network: Transducer, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = Taught(fused, Mirror(), DistillConfig("self"))
    network.train()
    network.encoder.normalization.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    monkeypatch.setattr(distillation, "encoder_match", lambda *_: torch.tensor(0.0))  # of batch statistics
    found = taught(network, encode(network, speech()))
    assert float(found.terms["posterior"]) == pytest.approx(0.0, abs=1e-4)
    assert float(found.loss) == pytest.approx(float(found.terms["transducer"]), abs=1e-4)

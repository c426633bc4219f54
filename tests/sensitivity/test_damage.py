from dataclasses import replace

import pytest
import torch

from nibble.quant.convert import prepare, quantized_modules, set_precision
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import quantize
from nibble.sensitivity.damage import lowered, measured_damage
from nibble.sensitivity.fisher import estimated_damage, squared_gradients, squared_moves
from nibble.sensitivity.losses import batch_loss, label_count, loss_per_label, one_by_one
from nibble.training import losses
from nibble.training.losses import fused


def test_a_layer_of_zeros_is_not_damaged(loaded, batches):
    with torch.no_grad():
        loaded.model.joiner.encoder.weight.zero_()
        loaded.model.encoder.subsampling.conv2.weight.zero_()
    for damage in (measured_damage(loaded, [1, 4], batches), estimated_damage(loaded, [1, 4], batches)):
        assert damage["joiner.encoder"] == damage["encoder.subsampling.conv2"] == {1: 0.0, 4: 0.0}
        assert damage["joiner.output"][1] != 0


def test_measured_damage_is_that_of_one_layer_in_a_float_model(loaded, batches):
    damage = measured_damage(loaded, [2], batches)
    assert list(damage) == list(quantized_modules(lowered(loaded, 2).model))
    rule = Rule("joiner.output", WeightSpec(bits=2), ActivationSpec())
    alone = loss_per_label(fused, quantize(loaded, QuantConfig("alone", [rule])).model, batches)
    assert damage["joiner.output"][2] == alone - loss_per_label(fused, loaded.model, batches)


def test_loss_per_label_counts_labels_not_batches(loaded, batches):
    single = list(one_by_one(batches))
    assert [(len(one), one.features.shape[1], one.labels.shape[1]) for one in single] == [(1, 40, 5), (1, 25, 3)] * 2
    whole = sum(batch_loss(fused, loaded.model, one).item() for one in single)
    assert loss_per_label(fused, loaded.model, batches) == pytest.approx(whole / 16, rel=1e-4)
    assert label_count([]) == 1


def test_squared_gradients_of_a_linear_model_by_hand():
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -1.0]]))
    x, y = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0.5, 1.0])
    # d/dw of (w x - y)^2 / 2 is (w x - y) x: residuals -2 and 0.5.
    found = squared_gradients(model, ((model(x[i]) - y[i]).square().sum() / 2 for i in range(2)))
    assert found["weight"].tolist() == [[(-2.0 * 1) ** 2 + (0.5 * 3) ** 2, (-2.0 * 2) ** 2]]


def test_estimate_of_one_utterance_by_hand(loaded, batches):
    (one,) = list(one_by_one(batches))[:1]
    batch_loss(fused, loaded.model, one).backward()
    weight = loaded.model.predictor.embedding.weight
    scale = (weight.detach().abs().amax(1, keepdim=True) / 7).half().float()
    moved = weight.detach() - (weight.detach() / scale).round().clamp(-7, 7) * scale
    expected = float(0.5 * (weight.grad.square() * moved.square()).sum() / 5)
    damage = estimated_damage(loaded, [2, 4], [one])["predictor.embedding"]
    assert damage[4] == pytest.approx(expected, rel=1e-4)
    assert damage[2] > damage[4] > 0


def test_moves_are_zero_where_weights_have_codes():
    model, copy = torch.nn.Sequential(torch.nn.Linear(3, 1)), torch.nn.Sequential(torch.nn.Linear(3, 1))
    for one in (model, copy):
        with torch.no_grad():
            one[0].weight.copy_(torch.tensor([[7.0, -3.0, 2.25]]))
    prepare(copy, QuantConfig("int4", [Rule("**", WeightSpec(bits=4), ActivationSpec())]))
    set_precision(copy, Precision.rules)
    assert squared_moves(model, copy)["0"]["0.weight"].tolist() == [[0.0, 0.0, 0.0625]]


def test_damage_is_of_the_loss_of_the_run(loaded, batches, monkeypatch):
    """A static scale of the joiner's last layer, for one, is of all logits at once: `loss.fused=false`."""
    calls = []
    plain = losses.transducer_loss
    monkeypatch.setattr(losses, "transducer_loss", lambda *arguments: calls.append(1) or plain(*arguments))
    measured_damage(loaded, [8], batches[:1])
    assert not calls
    config = replace(loaded.config, loss=replace(loaded.config.loss, fused=False))
    measured_damage(replace(loaded, config=config), [8], batches[:1])
    assert len(calls) > 5

"""Training with the fused loss: quantized joiners, whole runs, and what excludes it."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nibble import composition
from nibble.config import Config
from nibble.errors import UserError
from nibble.model import fused_loss
from nibble.model.fused_loss import fused_transducer_loss
from nibble.model.joiner import Joiner
from nibble.model.loss import transducer_loss
from nibble.model.targets import Targets
from nibble.model.transducer import Transducer
from nibble.quant import layer, layer_input
from nibble.quant.convert import prepare, quantized_modules, set_precision
from nibble.quant.low_rank import factorize
from nibble.quant.numerics import quantize_activation, quantize_weight
from nibble.quant.spec import ActivationSpec, Precision, WeightSpec
from nibble.quant.tensor import QuantizedTensor
from nibble.training import losses
from nibble.training.run import check_rules, train

LOSSES = [file.stem for file in (composition.conf_dir() / "loss").glob("*.yaml")]
QUANTS = ["int8", "int4", "int4w", "int4a4", "int2", "int4_asymmetric", "int4_learned", "int4_24"]


@pytest.fixture(params=[50, 2**14], ids="{} nodes at once".format)
def nodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    at_once(request.param, monkeypatch)
    return request.param


def at_once(nodes: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fused_loss, "GROUP", nodes)
    patch.setattr(fused_loss, "PART", nodes)


def quantized_joiner(config: Config, blend: float = 1.0) -> Joiner:
    torch.manual_seed(0)
    model = Transducer(config.model, config.features, 9)
    factorize(model, config.quant.low_rank)
    prepare(model, config.quant)
    set_precision(model, Precision.rules, blend)
    return model.joiner


def both(joiner: Joiner) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Loss and gradients by name, of the fused loss and of joiner and torchaudio, from the same random state."""
    torch.manual_seed(1)
    encoded, predicted = torch.randn(3, 9, 48), torch.randn(3, 5, 32)
    targets = torch.tensor([9, 4, 6]), torch.randint(1, 9, (3, 4)), torch.tensor([4, 3, 0])
    both_ways: list[Callable[..., Tensor]] = [
        lambda joiner, *inputs: fused_transducer_loss(joiner, *inputs, Targets(*targets)),
        lambda joiner, *inputs: transducer_loss(joiner(*inputs), *targets).sum(),
    ]
    found = []
    for function in both_ways:
        torch.manual_seed(2)
        joiner.zero_grad()
        inputs = [x.clone().requires_grad_() for x in (encoded, predicted)]
        value = function(joiner, *inputs)
        value.backward()
        gradients = {name: p.grad for name, p in joiner.named_parameters()}
        found.append((value.detach(), {"encoded": inputs[0].grad, "predicted": inputs[1].grad, **gradients}))
    return found


@pytest.mark.parametrize("quant", QUANTS)
def test_a_quantized_joiner(make_config, quant: str, nodes: int) -> None:
    (value, gradients), (want, slopes) = both(quantized_joiner(make_config(f"quant={quant}")))
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-5)
    for name, slope in slopes.items():
        torch.testing.assert_close(
            gradients[name], slope, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: name + text
        )


def test_a_joiner_on_a_ramp(make_config, nodes: int) -> None:
    (value, gradients), (want, slopes) = both(quantized_joiner(make_config("quant=int4"), blend=0.5))
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients["output.weight"], slopes["output.weight"], rtol=1e-3, atol=1e-4)


def test_a_factorized_joiner(make_config, nodes: int) -> None:
    low_rank = "quant.low_rank=[{match: 'joiner.output', share: 0.5}]"
    (_, gradients), (_, slopes) = both(quantized_joiner(make_config("quant=int4", low_rank)))
    assert {"output.first.weight", "output.second.weight"} <= set(slopes)
    for name, slope in slopes.items():
        torch.testing.assert_close(gradients[name], slope, rtol=1e-3, atol=1e-4)


def test_noise_in_a_weight_is_the_same_when_it_is_computed_again(make_config, monkeypatch) -> None:
    joiner = quantized_joiner(make_config("quant=int4_noise")).train()
    at_once(2**14, monkeypatch)
    (value, gradients), (want, slopes) = both(joiner)  # one draw each
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients["output.weight"], slopes["output.weight"], rtol=1e-3, atol=1e-4)
    at_once(12, monkeypatch)
    seen: list[Tensor] = []
    joiner.output.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    inputs = torch.randn(1, 6, 48), torch.randn(1, 4, 32)
    targets = Targets(torch.tensor([6]), torch.ones(1, 3, dtype=torch.long), torch.tensor([3]))
    fused_transducer_loss(joiner, *inputs, targets)
    assert len(seen) == 4
    assert {tuple(x.flatten().tolist()) for x in seen[:2]} == {tuple(x.flatten().tolist()) for x in seen[2:]}


@pytest.mark.parametrize("arithmetic", ["native", "fake"])
def test_a_step_quantizes_each_weight_once_and_an_activation_once_for_query_key_and_value(
    make_config, monkeypatch, arithmetic: str
) -> None:
    config = make_config("quant=int4", f"quant.arithmetic={arithmetic}")
    model = Transducer(config.model, config.features, 9)
    prepare(model, config.quant)
    set_precision(model, Precision.rules)
    at_once(12, monkeypatch)  # parts whose logits are computed twice
    weights, activations = Counter(), Counter()

    def weight(x: Tensor, spec: WeightSpec, name: str, *rest: Tensor | None) -> QuantizedTensor:
        weights[name] += 1
        return quantize_weight(x, spec, name, *rest)

    def activation(x: Tensor, dims: tuple[int, ...], spec: ActivationSpec, name: str, *rest: Tensor) -> tuple:
        activations[name] += 1
        return quantize_activation(x, dims, spec, name, *rest)

    monkeypatch.setattr(layer, "quantize_weight", weight)
    monkeypatch.setattr(layer_input, "quantize_activation", activation)
    lengths, labels = torch.tensor([60, 50]), torch.randint(1, 9, (2, 3))
    encoded, frames = model.encode(torch.randn(2, 60, config.features.mel_bins), lengths)
    targets = Targets(frames, labels, torch.full_like(lengths, 3))
    loss = fused_transducer_loss(model.joiner, encoded, model.predict(labels), targets)
    loss.backward()
    assert set(weights.values()) == {1}
    assert set(weights) == {
        f"{name}.{weight}" for name, module in quantized_modules(model).items() for weight in module.weight_names
    }
    shared = {name.rpartition(".")[2] for name in set(quantized_modules(model)) - set(activations)}
    assert shared == {"embedding", "key", "value"}
    assert activations["joiner.output"] > 2


def losses_of(config: Config) -> list[float]:
    """Training and validation losses, in the order of the run."""
    train(config)
    with (Path(config.run_dir) / "csv" / "metrics.csv").open() as file:
        rows = [*csv.DictReader(file)]
    return [float(row[name]) for row in rows for name in ("train_loss", "val_loss") if row.get(name)]


def test_a_run_has_the_same_losses(make_config, monkeypatch) -> None:
    at_once(200, monkeypatch)
    options = ["trainer.max_steps=4", "trainer.validate_every_steps=2", "optimizer.warmup_steps=1"]
    reference = losses_of(make_config("run_dir=runs/reference", "loss.fused=false", *options))
    assert len(reference) == 6
    assert reference[-1] < 0.9 * reference[0]
    assert losses_of(make_config("run_dir=runs/fused", *options)) == pytest.approx(reference, 1e-4)


def test_which_loss_a_choice_is() -> None:
    composed = {name: composition.training_config([f"loss={name}", "run_dir=."]).loss for name in LOSSES}
    assert {name: loss.fused for name, loss in composed.items()} == {
        "rnnt": True,
        "rnnt_ctc": True,
        "rnnt_torchaudio": False,
    }


@pytest.mark.parametrize(("posterior_weight", "whole"), [(0, 0), (1, 3)])
def test_only_a_teacher_that_compares_logits_has_them_made(
    make_config, monkeypatch, posterior_weight: int, whole: int
) -> None:
    """Three steps in float, three with the teacher, and the validation."""
    config = make_config(
        "quant=int2",
        f"distill.posterior_weight={posterior_weight}",
        "distill.encoder_weight=1",
        "trainer.max_steps=6",
        "trainer.validate_every_steps=6",
        "schedule.phases=[{at: 0, precision: float}, {at: 0.5, precision: rules}]",
    )
    made: list[Tensor] = []
    monkeypatch.setattr(
        losses, "transducer_loss", lambda logits, *targets: made.append(logits) or transducer_loss(logits, *targets)
    )
    assert train(config)["method"] == "distilled"
    assert len(made) == whole


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("{bits: 8, static: true}", "joiner.output a part of its input at a time, but activation static=true"),
        ("{bits: 8, granularity: per_utterance}", "activation granularity=per_utterance needs all of it"),
    ],
)
def test_an_activation_scale_of_the_whole(make_config, activation: str, message: str) -> None:
    rules = f"{{match: '**', weight: {{bits: 4}}, activation: {activation}}}"
    own = "{match: joiner.output, weight: {bits: 4}, activation: {bits: 8}}"
    with pytest.raises(UserError, match=message):
        check_rules(make_config("quant=int4", f"quant.rules=[{rules}]"))
    check_rules(make_config("quant=int4", "loss=rnnt_torchaudio", f"quant.rules=[{rules}]"))
    check_rules(make_config("quant=int4", f"quant.rules=[{own},{rules}]"))

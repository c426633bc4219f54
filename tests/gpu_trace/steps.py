"""The steps that are traced, at the sizes that hardware=gpu and hardware=h200 make of LibriSpeech."""

from types import SimpleNamespace
from typing import Any

import torch
from pretend import GPU, Found, Trace
from torch.optim.optimizer import _default_to_fused_or_foreach

from nibble import cli
from nibble.config import Config
from nibble.data.batch import Batch
from nibble.model.decoding import greedy
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.spec import Precision
from nibble.training.module import TransducerModule

DURATION_S, LABELS, VOCABULARY = 15, 60, 1024
PHASES = {
    "float": (Precision.float, 1.0),
    "int8": (Precision.int8, 1.0),
    "ramp": (Precision.rules, 0.5),
    "rules": (Precision.rules, 1.0),
}


def config(model: str, profile: str) -> Config:
    words = [f"model={model}", f"hardware={profile}", "quant=int4", "data=librispeech", "optimizer=adamw_noam"]
    return cli.training_config([*words, "run_dir=."])


def make_module(config: Config) -> TransducerModule:
    """On the GPU, prepared, with its optimizer."""
    tokenizer: Any = SimpleNamespace(size=VOCABULARY, decode=lambda ids: "")
    with GPU:
        module = TransducerModule(config, tokenizer, "librispeech")
        prepare(module.model, config.quant)
    module._device = GPU
    module.log = module.log_dict = lambda *_, **__: None
    module._trainer = SimpleNamespace(precision=config.hardware.precision, max_steps=1000, strategy=None, global_step=0)
    return module


def make_batch(config: Config, trace: Trace) -> Batch:
    """In page-locked memory, as the loader gives it."""
    count = int(config.hardware.batch_duration_s // DURATION_S)
    return Batch(
        features=torch.empty(count, 100 * DURATION_S, config.features.mel_bins),
        feature_lengths=trace.lengths(100 * DURATION_S, count),
        labels=torch.empty(count, LABELS, dtype=torch.long),
        label_lengths=trace.lengths(LABELS, count),
        ids=[str(number) for number in range(count)],
        texts=[""] * count,
        duration_s=float(count * DURATION_S),
        position=(0, 0),
    )


class Step:
    """A step of training, as Lightning takes it; the model has so many layers."""

    def __init__(self, config: Config, trace: Trace, layers: int) -> None:
        config.model.layers = layers
        self.config, self.trace = config, trace
        self.module = make_module(config)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.batch = make_batch(config, trace)
        self._step()  # the optimizer makes its state

    def __call__(self, phase: str) -> Found:
        set_precision(self.module.model, *PHASES[phase])
        self.module.train()
        with self.trace.stretch() as found:
            self._step()
        return found

    def _step(self) -> None:
        batch = self.batch.to(GPU)
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.module.training_step(batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.module.on_before_optimizer_step(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.trainer.gradient_clip)
        self.optimizer.step()


def training(model: str, profile: str, trace: Trace) -> dict[str, Found]:
    """Each phase of a whole model's training.

    Layers are alike, so models of one and two are traced.
    """
    layers = config(model, profile).model.layers
    one, two = (Step(config(model, profile), trace, count) for count in (1, 2))
    return {phase: one(phase).extended(two(phase), layers - 1) for phase in PHASES}


def one_layer(model: str, profile: str, trace: Trace) -> dict[str, Found]:
    """Each phase of a training with one layer: every kernel, once."""
    step = Step(config(model, profile), trace, 1)
    return {phase: step(phase) for phase in PHASES}


def optimizer_loop(model: str, profile: str) -> str:
    """How the optimizer of a training goes over its parameters: fused, foreach, or one by one."""
    optimizer = make_module(config(model, profile)).configure_optimizers()["optimizer"]
    group = optimizer.param_groups[0]
    if group["fused"]:
        return "fused"
    chosen = _default_to_fused_or_foreach(group["params"], differentiable=False, use_fused=False)[1]
    return "foreach" if group["foreach"] or (group["foreach"] is None and chosen) else "one by one"


def use(model: str, profile: str, trace: Trace) -> dict[str, Found]:
    """Validation, and a bundle that transcribes: of one layer, for its kernels."""
    step = Step(config(model, profile), trace, 1)
    module = step.module
    set_precision(module.model, Precision.rules)
    module.eval()
    with trace.stretch() as validation, torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        module.validation_step(step.batch.to(GPU), 0)
    freeze(module.model)
    with trace.stretch() as bundle, torch.inference_mode():
        batch = step.batch.to(GPU)
        greedy(module.model, *module.model.encode(batch.features, batch.feature_lengths))
    return {"validation": validation, "bundle": bundle}

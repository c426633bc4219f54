"""The steps that are traced, at the sizes that hardware=gpu and hardware=h200 make of LibriSpeech."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import torch
from pretend import GPU, Found, Trace
from processes import lightning_strategy, parallel_step
from torch.optim.optimizer import _default_to_fused_or_foreach

from nibble import composition
from nibble.config import Config
from nibble.data.batch import Batch
from nibble.inference.fused import fuse
from nibble.model.decoding import greedy
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.spec import Precision
from nibble.training.module import TransducerModule

SHORTEST_S, LONGEST_S, LABELS_A_SECOND, VOCABULARY = 10, 15, 4, 1024  # of one of the sampler's buckets
PARALLEL = {"DDP": "ddp", "FSDP": "fsdp"}  # -> hardware.strategy of hardware=multi_gpu
PHASES = {
    "float": (Precision.float, 1.0),
    "int8": (Precision.int8, 1.0),
    "ramp": (Precision.rules, 0.5),
    "rules": (Precision.rules, 1.0),
}


def config(model: str, profile: str) -> Config:
    hardware = [f"hardware={profile}"]
    if profile in PARALLEL:
        hardware = ["hardware=multi_gpu", f"hardware.strategy={PARALLEL[profile]}"]
    words = [f"model={model}", *hardware, "quant=int4", "data=librispeech", "optimizer=adamw_noam"]
    return composition.training_config([*words, "run_dir=."])


def make_module(config: Config) -> TransducerModule:
    """On the GPU, prepared, with its optimizer."""
    tokenizer: Any = SimpleNamespace(size=VOCABULARY, decode=lambda ids: "")
    with GPU:
        module = TransducerModule(config, tokenizer, "librispeech")
        prepare(module.model, config.quant)
    module._device = GPU
    module.log = module.log_dict = lambda *_, **__: None
    strategy = lightning_strategy(config)
    module._trainer = SimpleNamespace(
        precision=config.hardware.precision, max_steps=1000, strategy=strategy, global_step=0
    )
    module.configure_model()
    return module


def make_batch(config: Config, trace: Trace) -> Batch:
    """In page-locked memory, as the loader gives it: utterances of different lengths."""
    count = int(config.hardware.batch_duration_s / ((SHORTEST_S + LONGEST_S) / 2))
    step_s = (LONGEST_S - SHORTEST_S) / (count - 1)
    durations_s = [SHORTEST_S + step_s * number for number in range(count)]
    frames, labels = ([int(rate * one) for one in durations_s] for rate in (100, LABELS_A_SECOND))
    return Batch(
        features=torch.empty(count, max(frames), config.features.mel_bins),
        feature_lengths=trace.lengths(frames),
        labels=torch.empty(count, max(labels), dtype=torch.long),
        label_lengths=trace.lengths(labels),
        ids=[str(number) for number in range(count)],
        texts=[""] * count,
        duration_s=sum(durations_s),
        position=(0, 0),
    )


class Step:
    """A step of training, as Lightning takes it; the model has so many layers."""

    def __init__(self, model: str, profile: str, trace: Trace, layers: int) -> None:
        self.model, self.trace = model, trace
        self.config = config(model, profile)
        self.config.model.layers = layers
        self.module = make_module(self.config)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.training_step = parallel_step(self.module, self.module.trainer.strategy)
        self.take(profile)
        self._step()  # the optimizer makes its state

    def take(self, profile: str) -> None:
        """Batches of this hardware profile from now on."""
        hardware = config(self.model, profile).hardware
        assert hardware.precision == self.config.hardware.precision
        self.config.hardware = hardware
        self.batch = make_batch(self.config, self.trace)

    def __call__(self, phase: str) -> Found:
        set_precision(self.module.model, *PHASES[phase])
        self.module.train()
        with self.trace.stretch() as found:
            self._step()
        return found

    def _step(self) -> None:
        batch = self.batch.to(GPU)
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.training_step(batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.module.on_before_optimizer_step(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.trainer.gradient_clip)
        self.optimizer.step()


def whole(one: Step, two: Step, layers: int, phases: Iterable[str] = PHASES) -> dict[str, Found]:
    """Each phase of training a model of so many layers, from models of one and two: layers are alike."""
    return {phase: one(phase).extended(two(phase), layers - 1) for phase in phases}


def optimizer_loop(optimizer: torch.optim.Optimizer) -> str:
    """How it goes over its parameters: fused, foreach, or one by one."""
    group = optimizer.param_groups[0]
    if group["fused"]:
        return "fused"
    chosen = _default_to_fused_or_foreach(group["params"], differentiable=False, use_fused=False)[1]
    return "foreach" if group["foreach"] or (group["foreach"] is None and chosen) else "one by one"


def use(step: Step) -> dict[str, Found]:
    """Validation, and a bundle that transcribes: with the CUDA library, and with Triton in its place.

    The model cannot be trained any more.
    """
    module, trace = step.module, step.trace
    set_precision(module.model, Precision.rules)
    module.eval()
    with trace.stretch() as validation, torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        module.validation_step(step.batch.to(GPU), 0)
    freeze(module.model)
    fuse(module.model)
    found = {"validation": validation}
    for phase, compiled in (("bundle", trace.compiled), ("bundle, Triton", ())):
        trace.compiled = compiled
        with trace.stretch() as found[phase], torch.inference_mode():
            batch = step.batch.to(GPU)
            greedy(module.model, *module.model.encode(batch.features, batch.feature_lengths))
    return found

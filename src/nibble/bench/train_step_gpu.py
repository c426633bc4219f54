"""Time of one step of training on a GPU in bfloat16: int4 native, on a ramp and fake, against float.

A batch holds as much speech as hardware=gpu or hardware=h200 allow: 300 or 1200 s, in utterances of 15 s with 60
labels of 1024.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nibble import composition
from nibble.bench.gpu_counts import counts, finished
from nibble.bench.random_batch import random_batch
from nibble.bench.records import Measurement, with_counts
from nibble.bench.timing import in_turns, measurements
from nibble.kernels import implementations
from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import Precision
from nibble.quant.step import quantized_step
from nibble.runs.loaded import float_model
from nibble.training.losses import encode, fused

MODEL = "conformer_l"
SPEECH_S = (300, 1200)
UTTERANCE_S, LABELS, VOCABULARY = 15, 60, 1024
_FRAMES_A_SECOND = 100
_ROUNDS = 5
_FLOAT, _RAMP, _FAKE = "bfloat16", "int4, ramp", "int4, fake"


class GpuStep:
    """A model in training on the GPU, with a batch of random speech; what is drawn depends on the seed alone."""

    def __init__(
        self, model: str, quant: str, arithmetic: str = "native", blend: float = 1.0, speech_s: int = SPEECH_S[0]
    ) -> None:
        words = [f"model={model}", f"quant={quant}", f"quant.arithmetic={arithmetic}", "model.dropout=0", "run_dir=."]
        self.config = composition.training_config(words)
        torch.manual_seed(self.config.seed)
        self.model = float_model(self.config, VOCABULARY)
        prepare(self.model, self.config.quant)
        set_precision(self.model, Precision.rules, blend)
        count, frames = speech_s // UTTERANCE_S, UTTERANCE_S * _FRAMES_A_SECOND
        batch = random_batch(count, frames, self.config.features.mel_bins, LABELS, VOCABULARY)
        self.model.cuda()
        self._batch = batch.to("cuda")
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def loss(self) -> Tensor:
        """Forward: the loss per label, a scalar."""
        with torch.autocast("cuda", torch.bfloat16), quantized_step(self.model):
            return fused(self.model, encode(self.model, self._batch, len(self._batch) * LABELS)).loss

    def __call__(self) -> None:
        """Forward, backward, clipping and optimizer."""
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self._optimizer.step()
        self._optimizer.zero_grad()


def measure(model: str = MODEL, speech_s: tuple[int, ...] = SPEECH_S, rounds: int = _ROUNDS) -> list[Measurement]:
    """Each contender against float, with kernels launched, waits of the CPU and memory at its peak."""
    native = f"int4, native ({implementations.used_by('linear_w8a8', 'cuda')})"
    makers: dict[str, Callable[[int], GpuStep]] = {
        native: lambda seconds: GpuStep(model, "int4", speech_s=seconds),
        _RAMP: lambda seconds: GpuStep(model, "int4", blend=0.5, speech_s=seconds),
        _FAKE: lambda seconds: GpuStep(model, "int4", arithmetic="fake", speech_s=seconds),
        _FLOAT: lambda seconds: GpuStep(model, "float", speech_s=seconds),
    }
    gpu, found = torch.device("cuda"), []
    for seconds in speech_s:
        case = f"{model}, {seconds // UTTERANCE_S} x {UTTERANCE_S} s, GPU"
        steps = {name: make(seconds) for name, make in makers.items()}
        times = in_turns({name: finished(step) for name, step in steps.items()}, rounds, case)
        counted = {name: counts(step) for name, step in steps.items()}
        pairs = [(name, _FLOAT) for name in (native, _RAMP, _FAKE)] + [(_FLOAT, _FLOAT)]
        found += with_counts(measurements("train_step", case, times, pairs, torch.get_num_threads(), gpu), counted)
        del steps
        torch.cuda.empty_cache()
    return found

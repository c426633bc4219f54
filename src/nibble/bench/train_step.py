"""Time of one step of training, forward, backward and optimizer: int4 in native and in fake arithmetic, and float32.

A batch is four utterances of ten seconds with forty labels of 1024.
"""

from collections.abc import Callable

import torch

from nibble import composition
from nibble.bench.random_batch import random_batch
from nibble.bench.records import Measurement
from nibble.bench.timing import in_turns, measurements, torch_threads
from nibble.config import Config
from nibble.kernels import implementations
from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import Precision
from nibble.runs.loaded import float_model
from nibble.training.losses import encode, of_labels

MODELS = ("conformer_s", "conformer_m")
UTTERANCES, FRAMES, LABELS, VOCABULARY = 4, 1000, 40, 1024
_ROUNDS = 5
_FLOAT, _FAKE = "float32", "int4, fake"


def measure(models: tuple[str, ...] = MODELS, rounds: int = _ROUNDS) -> list[Measurement]:
    """Native against float32 and against fake, and fake against float32.

    The default loss runs on one thread and on all; torchaudio's on one, since it uses only one in any case.
    """
    native = f"int4, native ({implementations.used_by('linear_w8a8', 'cpu')})"
    pairs = [(native, _FLOAT), (native, _FAKE), (_FAKE, _FLOAT)]
    found = []
    cases = [("rnnt", 1), ("rnnt", torch.get_num_threads()), ("rnnt_torchaudio", 1)]
    for loss, threads in dict.fromkeys(cases):
        for model in models:
            name = f"{model}, 4 x 10 s" + ("" if loss == "rnnt" else f", loss={loss}")
            case = name + (f", {threads} threads" if threads > 1 else "")
            with torch_threads(threads):
                contenders = {
                    native: training_step(step_config(model, loss, "int4", "native")),
                    _FAKE: training_step(step_config(model, loss, "int4", "fake")),
                    _FLOAT: training_step(step_config(model, loss, "float", "native")),
                }
                times = in_turns(contenders, rounds, case)
            found += measurements("train_step", case, times, pairs, threads)
    return found


def step_config(model: str, loss: str, quant: str, arithmetic: str) -> Config:
    """The configuration of a run whose steps are timed."""
    words = [f"model={model}", f"loss={loss}", f"quant={quant}", f"quant.arithmetic={arithmetic}", "run_dir=."]
    return composition.training_config(words)


def training_step(config: Config) -> Callable[[], None]:
    """A step of a fresh model on a random batch, forward, backward and optimizer."""
    torch.manual_seed(config.seed)
    model = float_model(config, VOCABULARY)
    prepare(model, config.quant)
    set_precision(model, Precision.rules)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = random_batch(UTTERANCES, FRAMES, config.features.mel_bins, LABELS, VOCABULARY)
    objective = of_labels(config.model, config.loss)

    def step() -> None:
        loss = objective(model, encode(model, batch)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step

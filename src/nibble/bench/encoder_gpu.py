"""Time of an encoder in inference on a GPU: the integer weights of a bundle, against float32 and bfloat16."""

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from nibble.bench.fresh import fresh_config, fresh_model, fresh_tokenizer
from nibble.bench.gpu_counts import counts, finished
from nibble.bench.records import Measurement, with_counts
from nibble.bench.timing import in_turns, measurements
from nibble.model.transducer import Transducer
from nibble.runs.frozen import frozen_copy

MODEL = "conformer_l"
BATCHES = ((1, 10), (20, 15))  # utterances, seconds of each
_FRAMES_A_SECOND = 100
_ROUNDS = 15
_FLOAT, _HALF, _OURS = "torch float32", "torch bfloat16", "ours int4, torch"


def measure(
    model: str = MODEL, batches: tuple[tuple[int, int], ...] = BATCHES, rounds: int = _ROUNDS
) -> list[Measurement]:
    """Ours against both."""
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = fresh_tokenizer(Path(temporary))
        floating = fresh_model(model, "float", tokenizer).model
        networks = {_OURS: frozen_copy(fresh_model(model, "int4", tokenizer).model), _FLOAT: floating}
    networks[_HALF] = copy.deepcopy(floating)
    networks = {name: network.eval().cuda() for name, network in networks.items()}
    gpu, found = torch.device("cuda"), []
    for utterances, duration_s in batches:
        frames = duration_s * _FRAMES_A_SECOND
        features = torch.randn(utterances, frames, fresh_config(model, "float").features.mel_bins, device=gpu)
        lengths = torch.full((utterances,), frames, device=gpu)
        case = f"{model}, {utterances} x {duration_s} s, GPU"
        contenders = {name: _Encoder(network, features, lengths, name == _HALF) for name, network in networks.items()}
        with torch.inference_mode():
            times = in_turns({name: finished(call) for name, call in contenders.items()}, rounds, case)
            counted = {name: counts(call) for name, call in contenders.items()}
        pairs = [(_OURS, _FLOAT), (_OURS, _HALF), (_HALF, _FLOAT)]
        found += with_counts(measurements("encoder", case, times, pairs, torch.get_num_threads(), gpu), counted)
    return found


class _Encoder:
    """A call of one network."""

    def __init__(self, network: Transducer, features: Tensor, lengths: Tensor, half: bool) -> None:
        self._network, self._given, self._half = network, (features, lengths), half

    def __call__(self) -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=self._half):
            self._network.encode(*self._given)

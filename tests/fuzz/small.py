"""A run that is as small as one can be, for files of a few kilobytes."""

from functools import cache
from pathlib import Path

import torch

from nibble.config import Config, from_plain
from nibble.data.tokenizer import Tokenizer, train_tokenizer
from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import Precision
from nibble.runs.loaded import Loaded, float_model
from nibble.runs.method import Method

MEL_BINS = 16


@cache
def small_config(quant: str = "int4") -> Config:
    """The configuration of a run of one block, 8 wide."""
    rules = {
        "float": [],
        "int4": [{"match": "**", "weight": {"bits": 4}, "activation": {"bits": 8}}],
        "int2_24": [
            {"match": "joiner.output", "weight": {"bits": 2}, "activation": {"bits": 8}, "sparsity": {}},
            {"match": "**", "weight": {"bits": 2}, "activation": {"bits": 8}},
        ],
    }
    model = {"name": "small", "width": 8, "layers": 1, "heads": 2, "kernel": 3, "predictor_width": 8, "joiner_width": 8}
    return from_plain(
        {
            "name": "small",
            "run_dir": "runs/small/one",
            "data": {"corpus": "embedded"},
            "features": {"mel_bins": MEL_BINS},
            "model": {**model, "subsampling_channels": 2},
            "loss": {},
            "quant": {"name": quant, "rules": rules[quant]},
            "schedule": {},
            "optimizer": {"learning_rate": 0.001, "warmup_steps": 10},
            "hardware": {"threads": 1, "workers": 0},
            "logger": {},
            "trainer": {"max_steps": 10},
        }
    )


@cache
def small_tokenizer(folder: Path) -> Tokenizer:
    """The labels A to E; made in `folder`."""
    return train_tokenizer(["ABBA DEAD", "CAB BED"], small_config().data.tokens, 0, folder)


@cache
def small_model(folder: Path, quant: str = "int4") -> Loaded:
    """A model with random weights, at the precision of its rules."""
    config, tokenizer = small_config(quant), small_tokenizer(folder)
    torch.manual_seed(0)
    model = float_model(config, tokenizer.size)
    precision = Precision.rules if config.quant.rules else Precision.float
    prepare(model, config.quant)
    set_precision(model, precision)
    method = Method.qat if config.quant.rules else Method.float
    return Loaded(folder, config, tokenizer, model.eval(), precision, "small", 10, method, frozen=False)

"""How many times smaller than its float32 parameters the bundle of each model is, all files counted.

Weights are fresh: how many bytes they take depends on their shapes alone. Labels are 1024 byte pairs, learned from a
generated text with as many different words as a small corpus, so tokenizer.model and tokens.txt have the size of real
ones.
"""

import tempfile
from itertools import accumulate
from pathlib import Path
from random import Random

import torch
from hydra import compose, initialize_config_dir

from nibble import cli, provenance
from nibble.bench.records import Measurement
from nibble.config import Config, typed
from nibble.data.progress import track
from nibble.data.tokenizer import Tokenizer, train_tokenizer
from nibble.export.bundle import export_bundle
from nibble.export.checkpoint import quantize
from nibble.export.loaded import Loaded, float_model, float_parameters
from nibble.quant.spec import Precision

MODELS = ("conformer_xs", "conformer_s", "conformer_m", "conformer_l")
PRECISIONS = ("int4", "int4_24")
_WORDS = 5_000  # different ones in the generated text
_LINES = 5_000
_CONSONANTS, _VOWELS = "BCDFGHKLMNPRSTVW", "AEIOU"


def measure(models: tuple[str, ...] = MODELS, precisions: tuple[str, ...] = PRECISIONS) -> list[Measurement]:
    """The size of the bundle of each model at each precision."""
    cases = [(model, precision) for model in models for precision in precisions]
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = _tokenizer(Path(temporary))
        return [
            _measure(model, precision, tokenizer, Path(temporary) / "bundle")
            for model, precision in track(cases, "writing bundles", len(cases))
        ]


def _measure(model: str, precision: str, tokenizer: Tokenizer, folder: Path) -> Measurement:
    config = _config(model, precision)
    torch.manual_seed(config.seed)
    floating = Loaded(
        path=folder,
        config=config,
        tokenizer=tokenizer,
        model=float_model(config, tokenizer.size),
        precision=Precision.float,
        corpus="generated",
        step=0,
        method="float",
        frozen=False,
    )
    size_bytes = export_bundle(quantize(floating, config.quant), folder)
    return Measurement(
        bench="size",
        case=model,
        contender=precision,
        baseline="float32",
        ratio=4 * float_parameters(config, tokenizer.size) / size_bytes,
        median_ms=None,
        threads=torch.get_num_threads(),
        hardware=provenance.hardware(),
        commit=provenance.commit(),
        command=provenance.command(),
        bytes=size_bytes,
    )


def _config(model: str, precision: str) -> Config:
    """The configuration of a run on LibriSpeech."""
    cli.register_schemas()
    overrides = [f"model={model}", f"quant={precision}", "data=librispeech", f"run_dir=runs/{model}_{precision}"]
    with initialize_config_dir(str(cli.conf_dir()), version_base="1.3"):
        return typed(compose("train", overrides=overrides))


def _tokenizer(folder: Path) -> Tokenizer:
    """1024 byte pairs of a text whose words are of one to four syllables, the n-th as frequent as 1 / n."""
    draw = Random(1)
    words = ["".join(_syllable(draw) for _ in range(draw.choice((1, 2, 2, 3, 4)))) for _ in range(_WORDS)]
    frequencies = list(accumulate(1 / rank for rank in range(1, _WORDS + 1)))
    lines = [" ".join(draw.choices(words, cum_weights=frequencies, k=12)) for _ in range(_LINES)]
    options = _config(MODELS[0], "float").data
    return train_tokenizer(lines, options.tokens, options.vocabulary_size, folder)


def _syllable(draw: Random) -> str:
    return draw.choice(_CONSONANTS) + draw.choice(_VOWELS) + draw.choice(("", "", draw.choice(_CONSONANTS)))

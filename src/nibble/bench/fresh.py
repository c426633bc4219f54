"""A model with fresh weights, as at the start of a run on LibriSpeech: sizes and times depend on shapes alone.

Labels are 1024 byte pairs, learned from a generated text with as many different words as a small corpus, so
tokenizer.model and tokens.txt have the size of real ones.
"""

from itertools import accumulate
from pathlib import Path
from random import Random

import torch

from nibble import composition
from nibble.config import Config
from nibble.data.tokenizer import Tokenizer, train_tokenizer
from nibble.quant.spec import Precision
from nibble.runs.checkpoint import quantize
from nibble.runs.loaded import Loaded, float_model
from nibble.runs.method import Method

_WORDS = 5_000  # different ones in the generated text
_LINES = 5_000
_CONSONANTS, _VOWELS = "BCDFGHKLMNPRSTVW", "AEIOU"


def fresh_config(model: str, quant: str, *options: str) -> Config:
    """The configuration of a run on LibriSpeech, with more options of `train.py`."""
    return composition.training_config(
        [f"model={model}", f"quant={quant}", "data=librispeech", f"run_dir=runs/{model}_{quant}", *options]
    )


def fresh_model(model: str, quant: str, tokenizer: Tokenizer, *options: str) -> Loaded:
    """An untrained model, at the precision of `quant`, with more options of `train.py`."""
    config = fresh_config(model, quant, *options)
    torch.manual_seed(config.seed)
    floating = Loaded(
        path=Path("fresh"),
        config=config,
        tokenizer=tokenizer,
        model=float_model(config, tokenizer.size).eval(),
        precision=Precision.float,
        corpus="generated",
        step=0,
        method=Method.float,
        frozen=False,
    )
    return quantize(floating, config.quant)


def fresh_tokenizer(folder: Path) -> Tokenizer:
    """1024 byte pairs of a text whose words are of one to four syllables, the n-th as frequent as 1 / n."""
    draw = Random(1)
    words = ["".join(_syllable(draw) for _ in range(draw.choice((1, 2, 2, 3, 4)))) for _ in range(_WORDS)]
    frequencies = list(accumulate(1 / rank for rank in range(1, _WORDS + 1)))
    lines = [" ".join(draw.choices(words, cum_weights=frequencies, k=12)) for _ in range(_LINES)]
    options = fresh_config("conformer_xs", "float").data
    return train_tokenizer(lines, options.tokens, options.vocabulary_size, folder)


def _syllable(draw: Random) -> str:
    return draw.choice(_CONSONANTS) + draw.choice(_VOWELS) + draw.choice(("", "", draw.choice(_CONSONANTS)))

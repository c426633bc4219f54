"""README.md of a bundle: error rate, size and origin of the model.

It is documentation: no checksum covers it, and nothing is read from it.
"""

from dataclasses import dataclass
from pathlib import Path

from nibble import provenance
from nibble.percent import percent
from nibble.runs.loaded import Loaded, float_parameters
from nibble.runs.sixteen_bit import sixteen_bit
from nibble.runs.tensors import WEIGHTS, stored
from nibble.writing import write_text

CARD = "README.md"
_USE = """\
```
python -m nibble.transcribe model=FOLDER speech.wav
```

config.json has a checksum of every file but this page, which may be changed.
"""


@dataclass(frozen=True)
class Measured:
    """The result of evaluating a bundle."""

    corpus: str
    part: str
    wer: float  # a fraction
    wer_ci95: tuple[float, float]  # low, high
    words: int  # of the reference
    utterances: int
    backend: str  # arithmetic, kernels and search, as in records


def write_card(folder: Path, loaded: Loaded, size_bytes: int, measured: Measured | None = None) -> None:
    """Write README.md into `folder`, which has all other files of the bundle.

    Args:
        folder: the bundle.
        loaded: its model.
        size_bytes: of the other files.
        measured: None if the bundle was not evaluated yet.

    Raises:
        UserError: the disk is full, or writing is not allowed there.
    """
    text = "\n".join([_summary(loaded, size_bytes, measured), _origin(loaded), _what_is_in_16_bits(folder), _USE])
    write_text(folder / CARD, text)


def _summary(loaded: Loaded, size_bytes: int, measured: Measured | None) -> str:
    parameters = float_parameters(loaded.config, loaded.tokenizer.size)
    return (
        f"# {loaded.config.model.name} at {loaded.quant}: a speech recogniser\n\n"
        f"- Word error rate: {_error_rate(measured)}\n"
        f"- Size: {size_bytes:,} bytes without this page; {4 * parameters / size_bytes:.2f} times smaller than its "
        f"{parameters:,} parameters in float32\n"
        f"- Weights: {loaded.quant}, {loaded.method.sentence}"
    )


def _error_rate(measured: Measured | None) -> str:
    if measured is None:
        return "not measured yet: `python evaluate.py checkpoint=FOLDER`"
    low, high = (f"{100 * rate:.2f}" for rate in measured.wer_ci95)
    return (
        f"**{percent(measured.wer)}** (95 %: {low} … {high} %) on {measured.part} of {measured.corpus}, "
        f"{measured.words:,} words in {measured.utterances:,} utterances ({measured.backend})"
    )


def _origin(loaded: Loaded) -> str:
    config = loaded.config
    trained = f"- Trained on {loaded.corpus}: {loaded.step:,} steps, seed {config.seed}, experiment {config.name}\n"
    return (
        (trained if loaded.step or not config.origin else "")  # not of an import that was only rounded
        + (f"- Weights imported from {config.origin}\n" if config.origin else "")
        + f"- Source: Nibble, commit {provenance.commit()}\n"
    )


def _what_is_in_16_bits(folder: Path) -> str:
    groups = sixteen_bit(stored(folder / WEIGHTS))
    if not groups:
        return "Nothing is in 16 bits: all weights are in float32.\n"
    total, tensors = sum(group.values for group in groups), sum(group.tensors for group in groups)
    lines = [f"- {group.values:,} `{group.name}` ({group.tensors})\n" for group in groups]
    return f"In 16 bits are {total:,} values in {tensors} tensors; all else is integers:\n\n{''.join(lines)}"

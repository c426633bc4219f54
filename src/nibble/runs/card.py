"""README.md of a bundle: what the model is worth, how large it is, and where it comes from.

It is documentation: no checksum covers it, and nothing is read from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nibble import provenance
from nibble.config import Config
from nibble.errors import UserError
from nibble.runs.loaded import float_parameters, quant_name
from nibble.runs.method import Method
from nibble.runs.sixteen_bit import sixteen_bit
from nibble.runs.tensors import stored
from nibble.quant.spec import Precision
from nibble.writing import write_text

CARD = "README.md"
_USE = """\
```
python -m nibble.transcribe model=FOLDER speech.wav
```

config.json has a checksum of every file but this page, which may be changed.
"""
_METHODS = {
    Method.float: "not quantized",
    Method.ptq: "rounded without training",
    Method.gptq: "rounded without training, by GPTQ",
    Method.qat: "trained at this precision",
    Method.distilled: "trained at this precision, with a float teacher",
    Method.shared: "trained together with other precisions",
}


@dataclass(frozen=True)
class Measured:
    """What an evaluation of the bundle found."""

    corpus: str
    part: str
    wer: float  # a fraction
    wer_ci95: tuple[float, float]  # low, high
    words: int  # of the reference
    utterances: int
    backend: str  # arithmetic, kernels and search, as in records


def write_card(
    folder: Path, config: Config, notes: Mapping[str, Any], vocabulary_size: int, measured: Measured | None = None
) -> None:
    """Write README.md into `folder`, which has all other files of the bundle.

    Args:
        folder: the bundle.
        config: of the run.
        notes: as in `nibble.runs.bundle.write_bundle`.
        vocabulary_size: V.
        measured: None if the bundle was not evaluated yet.

    Raises:
        UserError: the disk is full, or writing is not allowed there.
    """
    others = sum(file.stat().st_size for file in folder.iterdir() if file.name != CARD)
    said = [_origin(config, notes), _what_is_in_16_bits(folder), _USE]
    parameters = float_parameters(config, vocabulary_size)
    size, found = 0, others
    while size != found:  # the page says how large the folder is with this page in it
        size = found
        text = "\n".join([_summary(config, notes, parameters, size, measured), *said])
        found = others + len(text.encode())
    try:
        write_text(folder / CARD, text)
    except OSError as error:
        raise UserError(f"{folder / CARD} cannot be written: {error.strerror}; free space") from error


def _summary(config: Config, notes: Mapping[str, Any], parameters: int, size: int, measured: Measured | None) -> str:
    precision = quant_name(config, Precision(notes["precision"]))
    return (
        f"# {config.model.name} at {precision}: a speech recogniser\n\n"
        f"- Word error rate: {_error_rate(measured)}\n"
        # Of one length for all ratios below 100: a shorter text would make the folder smaller and the ratio larger.
        f"- Size: {size:,} bytes, this page counted; {4 * parameters / size:5.2f} times smaller than its "
        f"{parameters:,} parameters in float32\n"
        f"- Weights: {precision}, {_METHODS[Method(notes['method'])]}"
    )


def _error_rate(measured: Measured | None) -> str:
    if measured is None:
        return "not measured yet: `python evaluate.py checkpoint=FOLDER`"
    low, high = (f"{100 * rate:.2f}" for rate in measured.wer_ci95)
    return (
        f"**{100 * measured.wer:.2f} %** (95 %: {low} … {high} %) on {measured.part} of {measured.corpus}, "
        f"{measured.words:,} words in {measured.utterances:,} utterances ({measured.backend})"
    )


def _origin(config: Config, notes: Mapping[str, Any]) -> str:
    return (
        f"- Trained on {notes['corpus']}: {notes['step']:,} steps, seed {config.seed}, experiment {config.name}\n"
        f"- Source: Nibble, commit {provenance.commit()}\n"
    )


def _what_is_in_16_bits(folder: Path) -> str:
    groups = sixteen_bit(stored(folder / "model.safetensors"))
    if not groups:
        return "Nothing is in 16 bits: all weights are in float32.\n"
    total, tensors = sum(group.values for group in groups), sum(group.tensors for group in groups)
    lines = [f"- {group.values:,} `{group.name}` ({group.tensors})\n" for group in groups]
    return f"In 16 bits are {total:,} values in {tensors} tensors; all else is integers:\n\n{''.join(lines)}"

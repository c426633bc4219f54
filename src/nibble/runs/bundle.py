"""The bundle: a folder with integer weights, configuration and tokenizer, from which nothing is executed.

model.safetensors  integers, scales, and the rest in 16 bits: `nibble.runs.tensors`
config.json        the run's configuration, what the weights are, and checksums: `nibble.runs.description`
tokenizer.model    SentencePiece
tokens.txt         "symbol id" a line, as sherpa-onnx reads it
README.md          for people: error rate, size and origin of the model: `nibble.runs.card`

The size of a bundle counts all files but README.md, which nothing needs and anyone may change.
"""

import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from nibble.data.tokenizer import Tokenizer
from nibble.runs.card import CARD, write_card
from nibble.runs.description import CHECKED, DESCRIPTION, described, read_description
from nibble.runs.folder import check_replaceable, checksum, replacing
from nibble.runs.loaded import Loaded
from nibble.runs.tensors import WEIGHTS, Stored, file_bytes, read_model, tensors_of

_FILES = {*CHECKED, DESCRIPTION, CARD}
_KIND = "a bundle"


def write_bundle(loaded: Loaded, folder: Path) -> int:
    """Write the bundle of a model, at the precision it is at, and return its size in bytes.

    The model stays as it is. `folder` appears whole or not at all; an older bundle there is replaced.

    Raises:
        UserError: the folder holds something else, the disk is full, or writing is not allowed there.
    """
    check_folder(folder)
    tensors = tensors_of(loaded)
    with replacing(folder, _FILES, _KIND) as partial:
        try:
            save_file(tensors, partial / WEIGHTS)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        loaded.tokenizer.write(partial)
        shutil.copymode(partial / "tokens.txt", partial / WEIGHTS)  # safetensors hides it from others
        text = described(loaded, {name: checksum(partial / name) for name in CHECKED})
        (partial / DESCRIPTION).write_text(text, encoding="utf-8")
        write_card(partial, loaded, bundle_bytes(partial))
    return bundle_bytes(folder)


def read_bundle(folder: Path) -> Loaded:
    """The model of a bundle, with integer weights, ready to use.

    Raises:
        UserError: a file is missing, damaged or of something else, or the bundle is of another version.
    """
    said = read_description(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    model = read_model(folder / WEIGHTS, said.config, tokenizer.size, said.precision)
    return Loaded(
        path=folder,
        config=said.config,
        tokenizer=tokenizer,
        model=model,
        precision=said.precision,
        corpus=said.corpus,
        step=said.step,
        method=said.method,
        frozen=True,
        heard_s=said.heard_s,
    )


def check_folder(folder: Path) -> None:
    """Raise `UserError` unless a bundle may be written to `folder`: it is new, empty, or holds a bundle alone."""
    check_replaceable(folder, _FILES, _KIND)


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a bundle, whole or not."""
    return (folder / WEIGHTS).is_file() or (folder / "tokens.txt").is_file()


def bundle_bytes(folder: Path) -> int:
    """Size of all files of a bundle, or of an export, but README.md."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.name != CARD)


def unwritten_bytes(loaded: Loaded, tensors: dict[str, Stored]) -> int:
    """The size that the bundle of a model would have, as `bundle_bytes` counts it; nothing is written.

    Args:
        loaded: the model.
        tensors: of the bundle: `nibble.runs.tensors.stored_of`.
    """
    tokenizer = sum(map(len, loaded.tokenizer.files().values()))
    description = described(loaded, dict.fromkeys(CHECKED, "0" * 64))  # checksums of files that are not there
    return file_bytes(tensors) + tokenizer + len(description.encode())

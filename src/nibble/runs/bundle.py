"""The packed file: a folder with integer weights, configuration and tokenizer, from which nothing is executed.

model.safetensors  integers, scales, and the rest in 16 bits: `nibble.runs.tensors`
config.json        the run's configuration, what the weights are, and checksums: `nibble.runs.description`
tokenizer.model    SentencePiece
tokens.txt         "symbol id" a line, as sherpa-onnx reads it
README.md          for people: what the model is worth, how large it is, and where it comes from: `nibble.runs.card`
"""

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from nibble.config import Config
from nibble.data.tokenizer import Tokenizer
from nibble.runs.card import CARD, write_card
from nibble.runs.description import CHECKED, read_description, write_description
from nibble.runs.folder import check_replaceable, folder_bytes, written_whole
from nibble.runs.loaded import Loaded
from nibble.runs.tensors import read_model, tensors_of
from nibble.model.transducer import Transducer
from nibble.quant.spec import Precision

_FILES = {*CHECKED, "config.json", CARD}


def export_bundle(loaded: Loaded, folder: Path) -> int:
    """Write the bundle of a model and return the size of all its files in bytes; see `write_bundle`."""
    return write_bundle(folder, loaded.model, loaded.tokenizer, loaded.config, loaded.notes)


def write_bundle(folder: Path, model: Transducer, tokenizer: Tokenizer, config: Config, notes: dict[str, Any]) -> int:
    """Write a trained model, at the precision it is at, and return the size of all files in bytes.

    The model is copied before it is frozen. `folder` appears whole or not at all; an older bundle there is replaced.

    Args:
        folder: the bundle; its parent is made if need be.
        model: prepared for `config.quant`, at the precision and full blend it is to be used at.
        tokenizer: as in training.
        config: of the run.
        notes: `precision` ("float", "int8", "rules"), `method` (as in records), `corpus`, `step`.

    Raises:
        UserError: the folder holds something else, the disk is full, or writing is not allowed there.
    """
    check_folder(folder)
    tensors = tensors_of(model, config, tokenizer.size, Precision(notes["precision"]))
    with written_whole(folder, "bundle") as partial:
        save_file(tensors, partial / "model.safetensors")
        tokenizer.write(partial)
        shutil.copymode(partial / "tokens.txt", partial / "model.safetensors")  # safetensors hides it from others
        write_description(partial, config, notes)
        write_card(partial, config, notes, tokenizer.size)
    return bundle_bytes(folder)


def read_bundle(folder: Path) -> Loaded:
    """The model of a bundle, with integer weights, ready to use.

    Raises:
        UserError: a file is missing, damaged or of something else, or the bundle is of another version.
    """
    said = read_description(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    model = read_model(folder / "model.safetensors", said.config, tokenizer.size, said.precision)
    return Loaded(
        folder, said.config, tokenizer, model, said.precision, said.corpus, said.step, said.method, frozen=True
    )


def check_folder(folder: Path) -> None:
    """Raise `UserError` unless a bundle may be written to `folder`: it is new, empty, or holds a bundle alone."""
    check_replaceable(folder, _FILES, "a bundle")


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a bundle, whole or not."""
    return (folder / "model.safetensors").is_file() or (folder / "tokens.txt").is_file()


def bundle_bytes(folder: Path) -> int:
    """Size of all files of a bundle."""
    return folder_bytes(folder)


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """What model.safetensors of a bundle holds, by name."""
    return load_file(folder / "model.safetensors")

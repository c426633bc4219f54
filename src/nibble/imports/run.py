"""A run folder of a model that was imported: a checkpoint in float, as `train.py` leaves one."""

from dataclasses import replace
from pathlib import Path

import torch

from nibble.config import Config, plain
from nibble.data.options import Tokens
from nibble.errors import UserError
from nibble.imports.importer import Foreign
from nibble.quant.spec import QuantConfig
from nibble.runs.run_folder import RunFolder
from nibble.writing import whole_file


def write_run(foreign: Foreign, config: Config, folder: Path) -> Path:
    """Write the imported model as a run in `folder`, without training, and return its checkpoint.

    Args:
        foreign: the model.
        config: of a training run; its model, features and labels are replaced by those of the import.
        folder: of the run; made if need be.

    Raises:
        UserError: there is a run already, the weights do not fit, the model has no labels, or nothing can be written
            there.
    """
    if foreign.tokenizer is None:
        raise UserError(
            f"{foreign.path} is an encoder without labels, which says nothing before it is trained: "
            f"python train.py init_from={foreign.path} data.corpus_dir=DIR"
        )
    run = RunFolder(folder)
    file = run.last_checkpoint
    if run.is_run():
        raise UserError(f"there is a run in {folder} already; give another folder")
    described = replace(
        config,
        name=foreign.model.name,
        origin=foreign.origin,
        model=foreign.model,
        features=replace(foreign.features, storage=config.features.storage),
        data=replace(config.data, tokens=Tokens.kept),
        quant=QuantConfig("float"),
    )
    saved = {
        "state_dict": {f"model.{name}": tensor for name, tensor in foreign.weights().items()},
        "nibble": {
            "config": plain(described),
            "tokenizer": foreign.tokenizer.model,
            "corpus": "unknown",
            "step": 0,
            "precision": "float",
            "blend": 1.0,
            "method": "float",
        },
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as partial:
            torch.save(saved, partial)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}; free space, or give another folder") from error
    return file

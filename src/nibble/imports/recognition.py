"""Which toolkit a file or folder comes from."""

from pathlib import Path

from nibble.errors import UserError
from nibble.imports.espnet import Espnet
from nibble.imports.foundation import Foundation
from nibble.imports.icefall import Icefall
from nibble.imports.importer import Foreign, Importer
from nibble.imports.nemo import Nemo
from nibble.imports.parakeet import Parakeet

IMPORTERS: tuple[Importer, ...] = (Nemo(), Parakeet(), Foundation(), Icefall(), Espnet())


def is_foreign(path: Path) -> bool:
    """Whether another toolkit wrote what lies at `path`."""
    return any(importer.recognises(path) for importer in IMPORTERS)


def read_foreign(path: Path) -> Foreign:
    """The description of the checkpoint of another toolkit at `path`.

    Raises:
        UserError: it is none that is known, is damaged, or cannot be represented; the text says what could be done.
    """
    for importer in IMPORTERS:
        if importer.recognises(path):
            return importer.describe(path)
    why = "does not exist" if not path.exists() else "is no checkpoint of a toolkit that can be imported"
    raise UserError(
        f"{path} {why}; give a .nemo file, a folder of Hugging Face Parakeet, wav2vec 2.0 or HuBERT "
        "(config.json, model.safetensors), an icefall folder (exp/pretrained.pt, data/lang_*/bpe.model), or an ESPnet "
        "package (a .zip, or a folder with meta.yaml)"
    )

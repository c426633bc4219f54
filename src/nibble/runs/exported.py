"""A folder that sherpa-onnx loads as it is, with what is needed to measure it.

encoder.onnx, decoder.onnx, joiner.onnx   `nibble.export.sherpa.graphs`, with the metadata that sherpa-onnx reads
tokens.txt                                "symbol id" a line; after the labels pairs of them, if there are any
bpe.vocab                                 "piece score" a line, with which sherpa-onnx splits hotwords
README.md                                 how to load it, for whoever is given the folder
tokenizer.model                           SentencePiece, for evaluation
nibble.json                               {"format": "nibble sherpa", "version": 1, "encoding": "w4a8",
                                           "precision": "rules", "method": "qat", "corpus": "digits", "step": 1200,
                                           "opset": 21, "labels_per_frame": 2,
                                           "config": every option of the run, "sha256": of each file that is checked}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nibble.config import Config, plain, portable
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.export.options import Encoding
from nibble.features.options import FeatureKind
from nibble.plain import build, parse
from nibble.quant.spec import Precision
from nibble.runs.folder import check_replaceable, checksum, replacing
from nibble.runs.loaded import Loaded, quant_name
from nibble.runs.method import Method

if TYPE_CHECKING:  # so that reading an export does not need onnx
    from onnx import ModelProto

GRAPHS = ("encoder.onnx", "decoder.onnx", "joiner.onnx")
_CHECKED = (*GRAPHS, "tokens.txt", "tokenizer.model")
_BESIDE = ("bpe.vocab", "README.md")
INT4_OPSET = 21  # of files with 4-bit weights
_RUNS_INT4 = "1.12.20"  # the first sherpa-onnx whose ONNX Runtime, 1.23.2, runs them
_RUNS_DURATIONS = "1.11.5"  # the first that searches transducers with durations: its CHANGELOG.md, Parakeet TDT
_NAME = "nibble.json"
_FORMAT = "nibble sherpa"
_VERSION = 1
_AGAIN = "export it again: python -m nibble.export checkpoint=RUN"


@dataclass(frozen=True)
class _Description:
    """The contents of nibble.json."""

    format: str
    version: int
    encoding: Encoding
    precision: Precision
    method: Method
    corpus: str
    step: int
    config: Config
    sha256: dict[str, str]
    opset: int | None = None  # absent in older exports
    labels_per_frame: int | None = None
    heard_s: float | None = None  # absent in exports of older versions


@dataclass(frozen=True)
class Exported:
    """A folder written by `write_sherpa`; the attributes are those of `Loaded`, but for the model."""

    path: Path
    config: Config
    tokenizer: Tokenizer
    precision: Precision
    corpus: str
    step: int
    method: Method
    encoding: Encoding
    opset: int | None  # None: an older export, which doesn't say
    heard_s: float | None

    @property
    def least_sherpa_onnx(self) -> str | None:
        """The first version that runs it; None: any, or an older export, which doesn't say."""
        return least_sherpa_onnx(self.opset, self.config)

    @property
    def sherpa_type(self) -> str | None:
        """The model_type that sherpa-onnx must be told; None: it knows by itself."""
        return "nemo_transducer" if self.config.features.kind is FeatureKind.nemo else None

    @property
    def quant(self) -> str:
        """As `Loaded.quant`."""
        return quant_name(self.config, self.precision)

    @property
    def size_bytes(self) -> int:
        """Of all files but README.md, as of a bundle."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.name != "README.md")


def least_sherpa_onnx(opset: int | None, config: Config) -> str | None:
    """The first version of sherpa-onnx that runs an export; None: any that reads ONNX files of its opset.

    Args:
        opset: of the files; None if that is not known.
        config: of the run.
    """
    if opset == INT4_OPSET:
        return _RUNS_INT4
    return _RUNS_DURATIONS if config.model.durations else None


class Form(NamedTuple):
    """How a model was exported, with the texts of the folder."""

    encoding: Encoding
    opset: int
    labels_per_frame: int
    symbols: list[str]  # that the joiner emits, in the order of ids
    readme: str


def write_sherpa(folder: Path, loaded: Loaded, graphs: "Mapping[str, ModelProto]", form: Form) -> Exported:
    """Write the graphs of `nibble.export.onnx.graphs` and what belongs to them.

    `folder` appears whole or not at all; an older export there is replaced.

    Raises:
        UserError: the folder holds something else, the disk is full, or writing is not allowed there.
    """
    with replacing(folder, {*_CHECKED, *_BESIDE, _NAME}, "an export") as partial:
        for name, graph in graphs.items():
            (partial / f"{name}.onnx").write_bytes(graph.SerializeToString())
        loaded.tokenizer.write(partial)
        texts = {
            "tokens.txt": "".join(f"{symbol} {id_}\n" for id_, symbol in enumerate(form.symbols)),
            "bpe.vocab": loaded.tokenizer.vocabulary(),
            "README.md": form.readme,
        }
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        said = {
            "format": _FORMAT,
            "version": _VERSION,
            "encoding": form.encoding.value,
            "opset": form.opset,
            "labels_per_frame": form.labels_per_frame,
            **loaded.notes,
            "config": plain(portable(loaded.config)),
            "sha256": {name: checksum(partial / name) for name in _CHECKED},
        }
        (partial / _NAME).write_text(json.dumps(said) + "\n", encoding="utf-8")
    return read_exported(folder)


def read_exported(folder: Path) -> Exported:
    """Read the description of an exported folder, and check every file against it.

    Raises:
        UserError: it is no exported folder, or a file is missing, damaged or changed.
    """
    if not is_exported(folder):
        what = "does not exist" if not folder.exists() else f"is no exported folder: it has no {_NAME}"
        raise UserError(f"{folder} {what}; write one with python -m nibble.export checkpoint=RUN output={folder}")
    for name in _CHECKED:
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a whole export: {name} is missing; {_AGAIN}")
    try:
        said = build(_Description, parse((folder / _NAME).read_bytes()))
    except UserError as error:
        raise UserError(f"{folder / _NAME} is damaged or of another version: {error}; {_AGAIN}") from error
    if (said.format, said.version) != (_FORMAT, _VERSION):
        raise UserError(
            f"{folder} is {said.format[:20]!r} of version {said.version}; this nibble reads {_FORMAT!r} of version "
            f"{_VERSION}; {_AGAIN}"
        )
    for name in _CHECKED:
        if checksum(folder / name) != said.sha256.get(name):
            size = (folder / name).stat().st_size
            raise UserError(f"{folder / name} is damaged or was changed ({size} bytes); copy it again, or {_AGAIN}")
    return Exported(
        path=folder,
        config=said.config,
        tokenizer=Tokenizer.load(folder / "tokenizer.model"),
        precision=said.precision,
        corpus=said.corpus,
        step=said.step,
        heard_s=said.heard_s,
        method=said.method,
        encoding=said.encoding,
        opset=said.opset,
    )


def is_exported(folder: Path) -> bool:
    """Whether a folder looks like an export, whole or not."""
    return (folder / _NAME).is_file()


def check_folder(folder: Path) -> None:
    """Raise `UserError` unless an export may be written to `folder`: it is new, empty, or holds an export alone."""
    check_replaceable(folder, {*_CHECKED, *_BESIDE, _NAME}, "an export")

"""Remembers where the speech of a run lies, so that a model can be evaluated from any working directory."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nibble.config import Config, overridden
from nibble.data.corpora.locate import ROOT, find_made
from nibble.data.options import DataConfig, DataOverrides
from nibble.errors import UserError
from nibble.plain import build, parse
from nibble.runs.run_folder import RunFolder
from nibble.writing import write_text


@dataclass(frozen=True)
class Home:
    """The contents of speech.json."""

    directory: str  # the working directory of the training: paths in its configuration begin there
    corpus: str  # the folder of parts


def remember(run: Path, corpus: Path) -> None:
    """Write speech.json into the folder of a run that trains on the parts in `corpus`.

    Raises:
        UserError: the folder cannot be written to.
    """
    home = Home(str(Path.cwd()), os.path.abspath(corpus))
    write_text(RunFolder(run).speech_file, json.dumps(asdict(home), indent=1) + "\n")


def speech(config: Config, run: Path, overrides: DataOverrides | None = None) -> tuple[Config, Path]:
    """The configuration of a run, with its folders of speech relative to the present working directory.

    Args:
        config: of the run.
        run: its folder.
        overrides: what the command changes; its paths begin in the present working directory.

    Returns:
        the configuration with the overrides, and the folder of made corpora and caches.

    Raises:
        UserError: the corpus has moved; the text says where it was.
    """
    overrides = overrides or DataOverrides()
    home = _read(RunFolder(run).speech_file)
    if home is None or Path(home.directory) == Path.cwd():
        return overridden(config, overrides), ROOT
    away = replace(config, data=_from(Path(home.directory), config.data))
    if overrides.corpus_dir or overrides.corpus or overrides.fsdd_dir:
        return overridden(away, overrides), ROOT
    if Path(home.corpus).is_dir():
        return overridden(away, overrides), Path(home.directory) / ROOT
    if find_made(config.data, ROOT) is not None:
        return overridden(config, overrides), ROOT
    again = "" if config.data.corpus_dir else f", or have it made again here: data.corpus={config.data.corpus.value}"
    raise UserError(f"the corpus of {run} was in {home.corpus} and has moved; say where: data.corpus_dir=DIR{again}")


def _from(directory: Path, data: DataConfig) -> DataConfig:
    """`data` with paths that begin in `directory`."""
    corpus, fsdd, noise = (path and str(directory / path) for path in (data.corpus_dir, data.fsdd_dir, data.noise.dir))
    return replace(data, corpus_dir=corpus, fsdd_dir=fsdd, noise=replace(data.noise, dir=noise))


def _read(file: Path) -> Home | None:
    if not file.is_file():
        return None
    try:
        return build(Home, parse(file.read_bytes()))
    except (OSError, UserError) as error:
        raise UserError(f"{file} is damaged: {error}; remove it, and start where the run was trained") from error

"""Divides a corpus into folds in which training never hears the speakers that are tested."""

import os
import shutil
from functools import partial
from pathlib import Path

from nibble.data.sources.recognise import parts_folder, parts_in
from nibble.errors import UserError
from nibble.writing import make_folder_once

FOLDS = 3
_KINDS = ("train", "dev")  # of the parts that the other speakers keep


def write_folds(corpus: Path) -> list[Path]:
    """The corpora CORPUS-fold1 to CORPUS-fold3 beside a corpus, written where they are missing.

    Each speaker is tested in one fold. The parts of fold 1 are train-fold1 and dev-fold1, with the other speakers'
    training and dev speech, and test-fold1, with all that its own speakers say. Audio files are linked where the disk
    can, else copied.

    Args:
        corpus: in LibriSpeech layout.

    Raises:
        UserError: there is no such corpus, it has fewer speakers than folds need, or the disk is full.
    """
    parts = parts_in(parts_folder(corpus, "CORPUS_DIR"))
    speakers = sorted({folder.name for part in parts.values() if part.is_dir() for folder in _folders(part)})
    if len(speakers) < 2 * FOLDS:
        raise UserError(
            f"{corpus} has {len(speakers)} speakers in LibriSpeech layout; "
            f"{FOLDS} folds of two need {2 * FOLDS} or more"
        )
    written = []
    for number in range(1, FOLDS + 1):
        fold = corpus.with_name(f"{corpus.name}-fold{number}")
        make_folder_once(fold, partial(_write, parts=parts, number=number, tested=set(speakers[number - 1 :: FOLDS])))
        written.append(fold)
    return written


def _write(folder: Path, parts: dict[str, Path], number: int, tested: set[str]) -> None:
    """Write one fold into the empty `folder`."""
    for part, path in parts.items():
        kind = next((kind for kind in _KINDS if part.startswith(kind)), None)
        for speaker in _folders(path):
            if speaker.name in tested:
                target = "test"
            elif kind is not None:
                target = kind
            else:
                continue  # test speech of the speakers in training
            shutil.copytree(
                speaker,
                folder / "LibriSpeech" / f"{target}-fold{number}" / speaker.name,
                copy_function=_link,
                dirs_exist_ok=True,  # a tested speaker's training and dev speech come together
            )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _link(source: str, target: str) -> None:
    """A second name of the same file; a copy on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

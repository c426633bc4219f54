"""The parts of a corpus: where they lie, and their utterances, each part read once."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nibble.data.audio import Waveforms
from nibble.data.corpora.locate import locate
from nibble.data.cuts import Cuts
from nibble.data.noise import Babble, FolderNoise, Noise
from nibble.data.options import DataConfig, NoiseConfig, NoiseKind, named_columns
from nibble.data.sources.part import Reading, read_part
from nibble.data.sources.recognise import part_path, parts_folder, parts_in, select_parts, source_of
from nibble.data.sources.shar import Shar
from nibble.data.stored import with_stored_features
from nibble.data.tokenizer import Tokenizer, train_tokenizer
from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureStorage
from nibble.progress import track

log = logging.getLogger(__name__)

_MAX_TEXTS = 1_000_000  # from which labels are learnt


class PartReader:
    """Finds a corpus, makes or downloads it if need be, and reads its parts.

    Args:
        data: which corpus, parts and noise.
        features: whether features are stored, and which.
        root: the folder of made and downloaded corpora, and of caches.

    Attributes:
        waveforms: the samples of all utterances that were read.
    """

    def __init__(self, data: DataConfig, features: FeatureConfig, root: Path) -> None:
        self.data = data
        self.features = features
        self.root = root
        self.waveforms = Waveforms(root / "cache")
        self._located: tuple[str, Path] | None = None
        self._cuts: dict[Path, Cuts] = {}
        self._noise: dict[str, Noise] = {}

    def locate(self) -> tuple[str, Path]:
        """The name of the corpus as records show it, and the folder of its parts."""
        if self._located is None:
            with self._disk():
                self._located = locate(self.data, self.root)
        return self._located

    def parts(self, kind: str) -> list[str]:
        """The parts of "train", "dev" or "test", in order; the list may be empty."""
        if self.data.overfit_utterances is not None and kind == "dev":
            kind = "train"
        wanted: list[str] | None = getattr(self.data, f"{kind}_parts")
        return select_parts(self.locate()[1], kind, wanted, f"data.{kind}_parts")

    def needed_parts(self, kind: str) -> list[str]:
        """As `parts`.

        Raises:
            UserError: there is no such part.
        """
        parts = self.parts(kind)
        if not parts:
            folder = self.locate()[1]
            present = ", ".join(parts_in(folder))
            raise UserError(
                f"no part of {folder} begins with {kind}; name some with data.{kind}_parts=[...]; there is {present}"
            )
        return parts

    def cuts(self, parts: Sequence[str]) -> Cuts:
        """Every good utterance of `parts`: checked, decoded if the part is small, with features if these are stored.

        With `data.overfit_utterances`, only the first ones; the dev parts are then the training parts.
        """
        folder = self.locate()[1]
        return Cuts.join([self._read(folder, part) for part in parts])[: self.data.overfit_utterances]

    def learn_labels(self) -> Tokenizer:
        """Learn the labels from the training transcripts."""
        cuts, options, cache = self.cuts(self.needed_parts("train")), self.data, self.root / "cache"
        if len(cuts) > _MAX_TEXTS:
            log.warning("labels are learnt from %d of %d texts, evenly spread", _MAX_TEXTS, len(cuts))
            cuts = cuts.spread(_MAX_TEXTS)
        texts = track(cuts.texts, "reading texts", len(cuts))
        with self._disk():
            return train_tokenizer(texts, options.tokens, options.vocabulary_size, cache, options.byte_fallback)

    def noise(self, kind: str) -> Noise | None:
        """The noise to mix with "train" or "dev"; None without `data.noise`."""
        config: NoiseConfig = self.data.noise
        if config.kind == NoiseKind.none or config.dir is None:
            return None
        if kind not in self._noise:
            if config.kind == NoiseKind.folder:
                with self._disk():
                    self._noise["train"] = self._noise["dev"] = FolderNoise(Path(config.dir))
            else:
                self._noise[kind] = self._babble(Path(config.dir), config, kind)
        return self._noise[kind]

    def _babble(self, corpus: Path, config: NoiseConfig, kind: str) -> Babble:
        folder, option = parts_folder(corpus, "data.noise.dir"), f"data.noise.{kind}_parts"
        parts = select_parts(folder, kind, getattr(config, f"{kind}_parts"), option)
        if not parts:
            raise UserError(f"no part of {folder} begins with {kind}; name some with {option}=[...]")
        return Babble(Cuts.join([self._read(folder, part) for part in parts]), self.waveforms, config.talkers)

    def _read(self, folder: Path, part: str) -> Cuts:
        path = part_path(folder, part)
        if path not in self._cuts:
            with self._disk():
                self._cuts[path] = self._read_first(path)
        return self._cuts[path]

    def _read_first(self, path: Path) -> Cuts:
        source = source_of(path, named_columns(self.data.columns))
        stored = self.features.storage == FeatureStorage.stored
        if stored and isinstance(source, Shar):
            raise UserError(
                f"features.storage=stored makes a file of each utterance, which the shards of {path} "
                "are there to avoid; give features.storage=on_the_fly"
            )
        reading = Reading(self.data.max_bad_utterances, self.data.channel, self.data.text_case)
        cuts = read_part(source, self.root / "cache", reading)
        if stored:
            return with_stored_features(cuts, self.features, self.root / "features")
        self.waveforms.add(cuts, path.name)
        return cuts

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Say what to do when a file cannot be read or written."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"can't read the corpus or write its cache: {error}. Free space or permit writing in "
                f"{self.root.resolve()}"
            ) from error

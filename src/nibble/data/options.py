"""The options of speech and text: `data=`, and what a command may change of a run's."""

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from nibble.errors import UserError
from nibble.ranges import COUNT, COUNT_OR_NONE, DECIBELS, POSITIVE, SHARE, Range, check


class Corpus(StrEnum):
    """Where the speech comes from when `data.corpus_dir` doesn't say."""

    embedded = "embedded"  # synthesised commands, made on first use
    digits = "digits"  # connected digits built from the free-spoken-digit-dataset
    mini_librispeech = "mini_librispeech"  # downloaded
    librispeech = "librispeech"  # downloaded


class Tokens(StrEnum):
    """What a label is."""

    char = "char"
    bpe = "bpe"
    kept = "kept"  # the tokenizer of `init_from`; an import keeps its own unless another is asked for


def named_columns(columns: list[str]) -> dict[str, str]:
    """`data.columns` as a dictionary: what an utterance is made of -> its column.

    Raises:
        UserError: one of them has no colon.
    """
    for column in columns:
        if ":" not in column:
            raise UserError(f"data.columns has {column!r}; give [audio:COLUMN,text:COLUMN]")
    return dict(column.split(":", 1) for column in columns)


class TextCase(StrEnum):
    """Whether transcripts keep their capitals."""

    keep = "keep"
    upper = "upper"  # type: ignore[assignment]  # hides a method of str that nothing calls
    lower = "lower"  # type: ignore[assignment]


class Condition(StrEnum):
    """A change of the speech in evaluation, to find out how robust a recogniser is.

    Attributes:
        label: what a table says.
    """

    label: str

    unchanged = "unchanged", "unchanged"
    silence_250ms = "silence_250ms", "0.25 s of silence before and after"
    silence_1s = "silence_1s", "1 s of silence before and after"
    silence_2s = "silence_2s", "2 s of silence before and after"
    quieter_12db = "quieter_12db", "12 dB quieter"
    quieter_24db = "quieter_24db", "24 dB quieter"
    quieter_36db = "quieter_36db", "36 dB quieter"
    noise_20db = "noise_20db", "white noise 20 dB below the speech"
    telephone = "telephone", "telephone: 300 to 3400 Hz, 8 kHz, mu-law"
    silence_alone = "silence_alone", "silence alone"

    def __new__(cls, value: str, label: str = "") -> "Condition":
        """A member whose value is the name, with its label."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.label = label
        return member


@dataclass
class SpecAugmentConfig:
    """Masks over the log-mel features (Park et al., 2019); over raw samples only time masks."""

    time_masks: int = 0  # 0 for none
    max_time_share: float = 0.15  # longest single time mask, as a share of the utterance
    max_time_frames: int = 40  # longest single time mask, in frames of 10 ms
    frequency_masks: int = 0  # 0 for none
    max_frequency_bins: int = 27  # widest single frequency mask
    probability: float = 1.0  # share of utterances masked

    def __post_init__(self) -> None:
        check(
            self,
            "data.spec_augment.",
            time_masks=COUNT_OR_NONE,
            max_time_share=SHARE,
            max_time_frames=COUNT_OR_NONE,
            frequency_masks=COUNT_OR_NONE,
            max_frequency_bins=COUNT_OR_NONE,
            probability=SHARE,
        )


class NoiseKind(StrEnum):
    """What is mixed into the speech."""

    none = "none"
    folder = "folder"  # any audio below `noise.dir`
    babble = "babble"  # several speakers of the LibriSpeech-layout folder `noise.dir` at once


@dataclass
class NoiseConfig:
    """Additive noise at a signal-to-noise ratio drawn uniformly between two bounds, per utterance."""

    kind: NoiseKind = NoiseKind.none
    dir: str | None = None  # where the noise lies
    train_parts: list[str] | None = None  # babble: parts of `dir` for training; null: all beginning with train
    dev_parts: list[str] | None = None  # babble: parts of `dir` for dev and test; null: all beginning with dev
    talkers: int = 4  # babble: voices at once
    train_snr_db: list[float] = field(default_factory=lambda: [0.0, 15.0])  # least and most
    dev_snr_db: float = 5.0  # dev and test: one level, the same noise in every run
    probability: float = 1.0  # share of training utterances mixed

    def __post_init__(self) -> None:
        if self.kind != NoiseKind.none and self.dir is None:
            raise UserError(f"data.noise.kind={self.kind.value} needs a folder of audio: data.noise.dir=DIR")
        if len(self.train_snr_db) != 2 or self.train_snr_db[0] > self.train_snr_db[1]:
            raise UserError(f"data.noise.train_snr_db is {self.train_snr_db}; give [least, most], such as [0, 15]")
        check(self, "data.noise.", talkers=COUNT, train_snr_db=DECIBELS, dev_snr_db=DECIBELS, probability=SHARE)


@dataclass
class RecordingConfig:
    """`data.recording`: makes clean training speech sound recorded; for corpora without pauses and rooms of their own.

    With features on the fly only. Dev and test speech stay as they are.
    """

    probability: float = 0.0  # share of training batches changed; 0: none
    max_silence_s: float = 2.0  # longest silence before and after an utterance, and between joined ones
    level_db: list[float] = field(default_factory=lambda: [-40.0, 0.0])  # change of level: least and most
    snr_db: list[float] = field(default_factory=lambda: [15.0, 60.0])  # speech to background noise: least and most
    max_joined: int = 1  # most utterances of a batch that are joined into one; 1: none are

    def __post_init__(self) -> None:
        for name in ("level_db", "snr_db"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise UserError(f"data.recording.{name} is {bounds}; give [least, most], such as [-40, 0]")
        check(
            self,
            "data.recording.",
            probability=SHARE,
            max_silence_s=Range(0, 60),
            level_db=DECIBELS,
            snr_db=DECIBELS,
            max_joined=Range(1, 100),
        )


@dataclass
class DataConfig:
    """`data=`: which speech, which labels, which disturbances."""

    corpus: Corpus = MISSING
    # a folder of parts in any format of docs/your-speech.md; null: data/<corpus>, made on first use
    corpus_dir: str | None = None
    train_parts: list[str] | None = None  # names of parts, or their paths; null: all that begin with "train"
    dev_parts: list[str] | None = None  # null: all that begin with "dev"
    test_parts: list[str] | None = None  # null: all that begin with "test"
    # manifests and tables: what an utterance is made of and its column, as in [audio:wav,text:said,speaker:who]
    columns: list[str] = field(default_factory=list)
    fsdd_dir: str | None = None  # corpus=digits: a clone of the free-spoken-digit-dataset to build from
    max_bad_utterances: int = 0  # utterances with missing audio, text or broken files to skip before stopping
    channel: str = "mix"  # of recordings with several: a number counted from 0, or mix for the mean of all
    text_case: TextCase = TextCase.keep  # of transcripts
    tokens: Tokens = Tokens.char
    vocabulary_size: int = 1024  # bpe: pieces, blank and unknown included; char: not used
    byte_fallback: bool = False  # bpe: the rarest and all unseen characters are written as bytes, a label each
    min_duration_s: float = 0.1  # shorter training utterances are left out
    max_duration_s: float = 30.0  # longer training utterances are left out
    speed_perturbation: bool = False  # 0.9x and 1.1x copies of the training speech
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    overfit_utterances: int | None = None  # debug: train and validate on this many training utterances, the first
    embedded_hours: float = 2.0  # corpus=embedded: hours of training speech to synthesise

    def __post_init__(self) -> None:
        check(
            self,
            "data.",
            max_bad_utterances=COUNT_OR_NONE,
            vocabulary_size=Range(3),
            min_duration_s=Range(0),
            max_duration_s=POSITIVE,
            overfit_utterances=COUNT,
            embedded_hours=Range(0, 1_000, open_below=True),
        )
        named_columns(self.columns)
        if self.byte_fallback and self.tokens is not Tokens.bpe:
            raise UserError("data.byte_fallback=true is for data.tokens=bpe; characters have a label each as they are")
        if self.channel != "mix" and not (self.channel.isascii() and self.channel.isdigit()):
            raise UserError(f"data.channel={self.channel}; give mix, or the number of a channel: 0, 1 ...")
        if self.min_duration_s >= self.max_duration_s:
            raise UserError(
                f"data.min_duration_s={self.min_duration_s:g} leaves nothing below "
                f"data.max_duration_s={self.max_duration_s:g}; give less"
            )


@dataclass
class NoiseOverrides:
    """The noise options that evaluation may change; null: as in training."""

    kind: NoiseKind | None = None
    dir: str | None = None
    dev_parts: list[str] | None = None
    talkers: int | None = None
    dev_snr_db: float | None = None

    def __post_init__(self) -> None:
        check(self, "data.noise.", talkers=COUNT, dev_snr_db=DECIBELS)


@dataclass
class DataOverrides:
    """The data options that evaluation may change; null: as in training."""

    corpus: Corpus | None = None
    corpus_dir: str | None = None
    columns: list[str] | None = None
    text_case: TextCase | None = None  # of the references
    fsdd_dir: str | None = None
    dev_parts: list[str] | None = None
    test_parts: list[str] | None = None
    max_bad_utterances: int | None = None
    noise: NoiseOverrides = field(default_factory=NoiseOverrides)

    def __post_init__(self) -> None:
        check(self, "data.", max_bad_utterances=COUNT_OR_NONE)

"""The tables of the README: an experiment on one kind of speech each, at the same precisions and seeds."""

from dataclasses import dataclass

PRECISIONS = ("float", "int8", "int4", "int4_24", "int2")
ROUNDED = ("int8", "int4", "int4_24", "int2")  # without training as well: the weights of the float runs
DEPLOYED = {"int8": "w8a8", "int4": "w4a8"}  # as a fused bundle as well, and in sherpa-onnx in that encoding
LENGTHENED = ("float", "int8", "int4")  # on joined utterances as well
SEEDS = (1, 2, 3)

_DIGITS = "data/digits"
_READ = "data/librispeech-mini"
# Folder of speech that must be there -> how to get it.
SPEECH = {
    _DIGITS: "clone https://github.com/Jakobovski/free-spoken-digit-dataset, build the digits from it with python "
    "train.py experiment=digits data.fsdd_dir=CLONE trainer.max_steps=1, and mv data/digits-fsdd data/digits",
    _READ: "python train.py data=mini_librispeech trainer.max_steps=1 downloads five hours to data/mini_librispeech; "
    "mv data/mini_librispeech data/librispeech-mini",
}


@dataclass(frozen=True)
class Start:
    """A float run that the runs of a table branch off from."""

    experiment: str
    minutes: float
    seeds: tuple[int, ...] = SEEDS  # a run of the table begins from that of its seed, else from the first


@dataclass(frozen=True)
class Table:
    """The runs of one experiment."""

    experiment: str
    minutes: float  # of one training on two quiet cores
    speech: tuple[str, ...] = ()  # folders of `SPEECH`; the first one is data.corpus_dir
    part: str = "dev"  # that is evaluated
    precisions: tuple[str, ...] = PRECISIONS
    folds: int = 0  # of the corpus, by speakers; 0: it is not divided
    start: Start | None = None
    gptq: tuple[str, ...] = ()  # precisions that GPTQ rounds the float runs to as well
    deployed: bool = False
    long_part: str | None = None  # whose utterances are joined to 20, 40 and 60 s as well


TABLES = (
    Table("digits", 3, (_DIGITS,), deployed=True, long_part="dev-digits"),
    Table("digits_babble", 5.5, (_DIGITS, _READ), gptq=("int4", "int2"), deployed=True),
    Table("digits_speakers", 3, (_DIGITS,), part="test", folds=3),
    Table("digits_speakers_babble", 5.5, (_DIGITS, _READ), part="test", folds=3),
    Table("demo", 2, part="test", start=Start("demo_start", 2), deployed=True),
    Table(
        "librispeech_mini_precisions",
        25,
        (_READ,),
        precisions=(*PRECISIONS, "int4a4"),
        start=Start("librispeech_mini", 120, seeds=(1,)),
        gptq=("int4", "int2"),
        deployed=True,
        long_part="dev-mini",
    ),
)

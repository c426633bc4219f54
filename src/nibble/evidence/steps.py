"""The commands of a table in the order in which they run, as a user would type them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nibble.data.corpora.lengthened import DURATIONS_S
from nibble.evidence.tables import DEPLOYED, LENGTHENED, ROUNDED, SEEDS, Start, Table
from nibble.runs.run_folder import RunFolder
from nibble.runs.variant import Variant

_MODEL_MINUTES = 0.5  # to evaluate, export or round one model on a few hundred utterances
_TRIAL = ("trainer.max_steps=4", "trainer.validate_every_steps=4", "trainer.max_validation_utterances=4")


class Kind(StrEnum):
    """What a step does."""

    prepare = "prepare"  # a corpus from another one
    train = "train"
    round = "round"  # by GPTQ
    export = "export"
    evaluate = "evaluate"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        table: the experiment whose table it is for.
        kind: what it does.
        name: which model or speech, for people.
        command: the words after `python`, where nothing of it is done.
        minutes: what it takes on two quiet cores.
        makes: the run, or the folder of speech, that is there when it is done; None for other kinds.
        reads: runs that must be finished, folders of speech that must be there.
    """

    table: str
    kind: Kind
    name: str
    command: tuple[str, ...]
    minutes: float
    makes: Path | None = None
    reads: tuple[Path, ...] = ()

    @property
    def next_command(self) -> tuple[str, ...]:
        """The words after `python` that bring it further: a training that was stopped goes on."""
        if self.kind is Kind.train and self.makes is not None and RunFolder(self.makes).is_run():
            return ("train.py", f"resume={self.makes}")
        return self.command


@dataclass(frozen=True)
class Place:
    """Where the runs lie, and what every command is told."""

    folder: Path = Path("runs/evidence")
    threads: int | None = None  # hardware.threads; None: torch's choice
    trial: bool = False  # trainings of four steps, evaluations of four utterances

    @property
    def records(self) -> Path:
        """The file of evaluations: a user's own, or one of the trial."""
        return self.folder / "records.jsonl" if self.trial else Path("runs/records.jsonl")

    def _machine(self) -> list[str]:
        return [f"hardware.threads={self.threads}"] if self.threads else []

    def training(self) -> list[str]:
        """Words for `train.py`."""
        # The evaluation at the end of a run is of dev parts: no row of a table that tests.
        return ["records=null", *self._machine(), *([*_TRIAL, "optimizer.warmup_steps=1"] if self.trial else [])]

    def evaluation(self) -> list[str]:
        """Words for `evaluate.py`."""
        return [*self._machine(), *(["max_utterances=4", f"records={self.records}"] if self.trial else [])]


@dataclass(frozen=True)
class _Training:
    """A run of a table."""

    quant: str
    fold: int | None
    seed: int

    @property
    def name(self) -> str:
        """Of its folder; one of a kind in the folder of the table."""
        return "_".join([self.quant, *([f"fold{self.fold}"] if self.fold else []), f"seed{self.seed}"])


def steps(table: Table, place: Place) -> list[Step]:
    """Everything that a table needs, trainings first."""
    found = [*_folds(table), *_starts(table, place)]
    found += [_train(table, place, one) for one in _trainings(table)]
    for quant in table.precisions:
        found.append(_evaluate(table, place, quant, _runs(table, place, quant)))
    for quant in ROUNDED:
        floats = _runs(table, place, "float")
        found.append(_evaluate(table, place, f"float rounded to {quant}", floats, f"quant={quant}"))
    for quant in table.gptq:
        found += _gptq(table, place, quant)
    if table.deployed:
        for quant, encoding in DEPLOYED.items():
            found += _deployed(table, place, quant, encoding)
    return [*found, *_lengthened(table, place)]


def _trainings(table: Table) -> list[_Training]:
    folds = range(1, table.folds + 1) if table.folds else (None,)
    return [_Training(quant, fold, seed) for seed in SEEDS for quant in table.precisions for fold in folds]


def _folder(table: Table, place: Place, one: _Training) -> Path:
    return place.folder / table.experiment / one.name


def _runs(table: Table, place: Place, *quants: str) -> list[Path]:
    return [_folder(table, place, one) for one in _trainings(table) if one.quant in quants]


def _corpus(table: Table, fold: int | None = None) -> Path | None:
    if not table.speech:
        return None
    corpus = Path(table.speech[0])
    return corpus.with_name(f"{corpus.name}-fold{fold}") if fold else corpus


def _folds(table: Table) -> Iterator[Step]:
    """The command that divides a corpus."""
    if table.folds:
        corpus = table.speech[0]
        command = ("-m", "nibble.data.speaker_folds", corpus)
        last = _corpus(table, table.folds)
        yield Step(table.experiment, Kind.prepare, "folds by speakers", command, 0.1, last, (Path(corpus),))


def _starts(table: Table, place: Place) -> Iterator[Step]:
    """The float runs that those of the table branch off from."""
    for seed in table.start.seeds if table.start else ():
        assert table.start is not None
        words = [f"experiment={table.start.experiment}", "quant=float", f"seed={seed}"]
        run = _start_folder(table.start, place, seed)
        speech = tuple(map(Path, table.speech))
        corpus = [f"data.corpus_dir={speech[0]}"] if speech else []
        name = f"{table.start.experiment}, seed {seed}"
        command = _training_command(words + corpus, run, place)
        yield Step(table.experiment, Kind.train, name, command, table.start.minutes, run, speech)


def _start_folder(start: Start, place: Place, seed: int) -> Path:
    seed = seed if seed in start.seeds else start.seeds[0]
    return place.folder / start.experiment / f"float_seed{seed}"


def _train(table: Table, place: Place, one: _Training) -> Step:
    run, corpus = _folder(table, place, one), _corpus(table, one.fold)
    words = [f"experiment={table.experiment}", f"quant={one.quant}", f"seed={one.seed}"]
    reads = [*([corpus] if corpus else []), *map(Path, table.speech[1:])]
    if corpus:
        words.append(f"data.corpus_dir={corpus}")
    if table.start:
        reads.append(_start_folder(table.start, place, one.seed))
        words.append(f"init_from={reads[-1]}")
    command = _training_command(words, run, place)
    return Step(table.experiment, Kind.train, one.name, command, table.minutes, run, tuple(reads))


def _training_command(words: Sequence[str], run: Path, place: Place) -> tuple[str, ...]:
    return ("train.py", *words, f"hydra.run.dir={run}", *place.training())


def _evaluate(
    table: Table, place: Place, name: str, models: Sequence[Path], *words: str, part: str | None = None
) -> Step:
    """One evaluation of several models, which are runs or lie in runs."""
    command = ["evaluate.py", f"checkpoint=[{','.join(map(str, models))}]", f"part={part or table.part}", *words]
    runs = tuple(model if model in _runs(table, place, *table.precisions) else model.parent for model in models)
    minutes = _MODEL_MINUTES * len(models)
    return Step(table.experiment, Kind.evaluate, name, (*command, *place.evaluation()), minutes, None, runs)


def _gptq(table: Table, place: Place, quant: str) -> Iterator[Step]:
    runs = _runs(table, place, "float")
    for run in runs:
        command = ("-m", "nibble.quantize", f"checkpoint={run}", f"quant={quant}", "rounding=gptq")
        yield Step(table.experiment, Kind.round, f"{run.name} to {quant}", command, _MODEL_MINUTES, None, (run,))
    bundles = [Variant(RunFolder(run).best_checkpoint, precision=quant, rounding="gptq").bundle for run in runs]
    yield _evaluate(table, place, f"float rounded to {quant} by GPTQ", bundles)


def _deployed(table: Table, place: Place, quant: str, encoding: str) -> Iterator[Step]:
    """The fused bundle, and the folder for sherpa-onnx."""
    runs = _runs(table, place, quant)
    yield _evaluate(table, place, f"{quant}, fused bundle", runs, "backend=bundle")
    exports = [Variant(RunFolder(run).best_checkpoint).exported(encoding) for run in runs]
    for run in runs:
        command = ("-m", "nibble.export", f"checkpoint={run}", f"encoding={encoding}")
        yield Step(table.experiment, Kind.export, f"{run.name} for sherpa-onnx", command, _MODEL_MINUTES, None, (run,))
    yield _evaluate(table, place, f"{quant}, sherpa-onnx", exports, "backend=sherpa")


def _lengthened(table: Table, place: Place) -> Iterator[Step]:
    """Joined utterances: the speech, and an evaluation for each length."""
    corpus = _corpus(table)
    if table.long_part is None or corpus is None:
        return
    long = corpus.with_name(f"{corpus.name}-long")
    command = ("-m", "nibble.data.lengthen", str(corpus), f"part={table.long_part}")
    yield Step(table.experiment, Kind.prepare, "joined utterances", command, 0.2, long, (corpus,))
    trained, floats = _runs(table, place, *LENGTHENED), _runs(table, place, "float")
    for duration_s in DURATIONS_S:
        part, where = f"test-{duration_s}s", f"data.corpus_dir={long}"
        yield _evaluate(table, place, f"{duration_s} s, trained", trained, where, part=part)
        for quant in LENGTHENED[1:]:
            name = f"{duration_s} s, float rounded to {quant}"
            yield _evaluate(table, place, name, floats, where, f"quant={quant}", part=part)

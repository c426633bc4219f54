"""Measures how much audio a loader delivers, and how long training waits for it, by the source of its features.

on the fly        log-mel from decoded audio, as `features=fbank`
stored features   a file for each utterance, as `features=fbank_stored`
Lhotse Shar       the same features in tar files of a thousand utterances, read from front to end by Lhotse

Every contender goes through the training speech once, in one process and on one thread, with its files in the page
cache, and makes batches of the same utterances. Then `train.py` trains for some steps, and says how much of the
time it had no batch. The smallest model, in float, is the hardest to feed: others take longer for a step.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler

from nibble import composition, provenance
from nibble.bench.records import Measurement
from nibble.bench.timing import Times, in_turns, torch_threads
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.sampler import TrainSampler
from nibble.errors import UserError
from nibble.progress import track
from nibble.runs.run_folder import RunFolder

MODEL = "conformer_xxs"
_ROUNDS = 3
_STEPS, _WINDOW = 50, 5  # of training; speed and waiting time are measured over a window of steps
_TRAININGS = {  # contender -> options of the run
    "on the fly, no loader process": ("features=fbank", "hardware.workers=0"),
    "on the fly, a loader process": ("features=fbank", "hardware.workers=1"),
}


def measure(corpus: Path | None = None) -> list[Measurement]:
    """Loaders, then trainings.

    Args:
        corpus: a folder that `data.corpus_dir=` takes; None for the embedded corpus.

    Raises:
        UserError: the corpus cannot be read.
    """
    words = [f"model={MODEL}", "loss=rnnt_ctc", "quant=float", "hardware.threads=1"]
    if corpus is not None:
        words.append(f"data.corpus_dir={corpus}")
    return [*measure_loaders(words), *measure_trainings(words)]


def measure_loaders(words: list[str], rounds: int = _ROUNDS, root: Path = Path("data")) -> list[Measurement]:
    """Hours of audio in an hour of CPU time.

    Args:
        words: of the command line of `train.py`.
        rounds: times that each contender goes through the training speech.
        root: where corpora and stored features lie.
    """
    on_the_fly, stored = (_speech([*words, f"features={choice}"], root) for choice in ("fbank", "fbank_stored"))
    audio_s = sum(cut.duration for cut in _utterances(stored).cuts)
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        times = in_turns(epochs(on_the_fly, stored, Path(folder)), rounds, "loading")
    case = f"loading {audio_s / 3600:.2f} h of {stored.corpus_name}, one process"
    return [_loader(case, name, of, audio_s) for name, of in times.items()]


def measure_trainings(words: list[str], steps: int = _STEPS) -> list[Measurement]:
    """The audio that each training uses in an hour, and the share of its time that it waits."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        trainings = enumerate(_TRAININGS.items())
        for number, (name, options) in track(trainings, f"training, {steps} steps each", len(_TRAININGS)):
            run = Path(folder) / f"run_{number}"
            _train([*words, *options], run, steps)
            found += _training(name, RunFolder(run).metrics)
    return found


def epochs(
    on_the_fly: SpeechDataModule, stored: SpeechDataModule, folder: Path
) -> dict[str, Callable[[], list[Batch]]]:
    """One round of each contender: all batches of the training speech.

    Args:
        on_the_fly: the speech with features from its audio.
        stored: the same speech with stored features.
        folder: for the tar files, empty.
    """
    utterances, dataset = _utterances(stored), stored.train_dataloader().dataset
    without_audio = CutSet.from_cuts(cut.drop_recording() for cut in utterances.cuts)
    without_audio.to_shar(folder, fields={"features": "numpy"}, shard_size=1000)
    batches = stored.batches_per_epoch()

    def shar() -> list[Batch]:
        sampler: DynamicBucketingSampler = DynamicBucketingSampler(
            CutSet.from_shar(in_dir=folder),
            max_duration=utterances.hardware.batch_duration_s,
            duration_bins=utterances.bounds_s,
            shuffle=True,
            seed=utterances.seed,
        )
        return [dataset[0, index, cuts] for index, cuts in enumerate(sampler)]

    return {
        "on the fly": lambda: list(islice(on_the_fly.train_dataloader(), batches)),
        "stored features": lambda: list(islice(stored.train_dataloader(), batches)),
        "Lhotse Shar": shar,
    }


def waiting(metrics: Path) -> tuple[float, float, int]:
    """Medians over the windows of a training, without the first one, in which loader processes start.

    Args:
        metrics: what the CSV logger wrote.

    Returns:
        the share of time spent waiting, the hours of audio used in an hour, and the number of windows
    """
    with metrics.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/waiting_share"]][1:]
    share, speed = (
        statistics.median(float(row[f"speed/{name}"]) for row in rows)
        for name in ("waiting_share", "audio_hours_per_hour")
    )
    return share, speed, len(rows)


def _speech(words: list[str], root: Path) -> SpeechDataModule:
    # Stored features cannot change from epoch to epoch, so no contender changes them.
    same = ["data.recording.probability=0", "hardware.workers=0", "run_dir=."]
    config = composition.training_config([*words, *same])
    return SpeechDataModule(config.data, config.features, config.hardware, config.seed, root)


def _utterances(data: SpeechDataModule) -> TrainSampler:
    sampler = data.train_dataloader().sampler
    assert isinstance(sampler, TrainSampler)
    return sampler


def _train(words: list[str], run: Path, steps: int) -> None:
    """Run some steps of `train.py`, which logs how long it waits."""
    options = [f"hydra.run.dir={run}", "records=null", "logger=csv", "trainer.max_validation_utterances=4"]
    lengths = [f"trainer.max_steps={steps}", f"trainer.log_every_steps={_WINDOW}"]
    script = composition.conf_dir().parent / "train.py"
    done = subprocess.run([sys.executable, script, *words, *options, *lengths], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{script.name} {' '.join(words)} failed: {done.stderr.strip()}")


def _loader(case: str, name: str, times: Times, audio_s: float) -> Measurement:
    median_ms = statistics.median(times.cpu_ms)
    found = _measurement(case, name, "its audio", 1000 * audio_s / median_ms, "cpu", len(times.cpu_ms))
    return replace(found, median_ms=median_ms, wall_ms=statistics.median(times.wall_ms))


def _training(name: str, metrics: Path) -> list[Measurement]:
    share, speed, windows = waiting(metrics)
    case = f"training {MODEL} in float32"
    return [
        _measurement(case, name, baseline, ratio, "wall", windows)
        for baseline, ratio in (("its audio", speed), ("the time it takes", share))
    ]


def _measurement(case: str, contender: str, baseline: str, ratio: float, clock: str, rounds: int) -> Measurement:
    return Measurement(
        bench="feeding",
        case=case,
        contender=contender,
        baseline=baseline,
        ratio=ratio,
        median_ms=None,
        threads=1,
        **provenance.here(),
        clock=clock,
        rounds=rounds,
    )

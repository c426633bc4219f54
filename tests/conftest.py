"""Fixtures that several rooms use."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# isort: off
import nibble  # noqa: F401 - before torch, as in every command, since it says how threads wait

# isort: on
import numpy as np
import pytest
import soundfile
import torch

# Before Triton is imported, which Lightning does: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


from exports import exported, fitted  # noqa: F401 - fixtures
from gpu_marker import pytest_runtest_makereport, pytest_runtest_setup  # noqa: F401 - hooks of pytest
from tiny_options import SMALL

from nibble import composition
from nibble.config import Config, plain
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.datamodule import SpeechDataModule
from nibble.data.tokenizer import Tokenizer, train_tokenizer
from nibble.memory import Footprint
from nibble.model.loss import transducer_loss
from nibble.model.transducer import Transducer

WORDS = ["UP", "DOWN", "LEFT", "RIGHT", "GO", "STOP", "YES", "NO", "ON", "OFF"]
LETTERS = sorted(set("".join(WORDS)))
REPOSITORY = Path(__file__).resolve().parents[1]
TINY_RUN = [
    *SMALL,
    "name=tiny",
    "model.width=32",
    "model.heads=2",
    "data.recording.probability=0",  # what a test compares must not be drawn
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of tests/fuzz."""
    parser.addoption("--fuzz-cases", type=int, help="broken files of each kind; 50 to 200 if left out")
    parser.addoption("--fuzz-seed", type=int, default=0, help="which ones")


@pytest.fixture(scope="session", autouse=True)
def quick_footprint() -> Iterator[Footprint]:
    """What evaluations say of memory: a process of its own for each takes three seconds, and few tests are about it."""
    found = Footprint(load_s=0.1, loaded_bytes=2_000_000, ran_bytes=3_000_000, peak_bytes=4_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nibble.evaluation.footprints.footprint", lambda *_: found)
        yield found


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The packed corpora beside the repository, for the few tests on real speech."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the packed corpora are not on this machine")
    return folder


@pytest.fixture(scope="session")
def disassembled():
    """disassembled(file) -> the machine code in a file for GPUs, or with another option of the tool what that shows.

    The tool comes with CUDA, and in Triton's wheel.
    """
    triton = find_spec("triton")
    beside = Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump" if triton and triton.origin else None
    tool = shutil.which("cuobjdump") or (str(beside) if beside and beside.is_file() else None)
    if tool is None:
        pytest.skip("no cuobjdump: neither a CUDA toolkit nor Triton is installed")

    def disassemble(file: str | Path, what: str = "-sass") -> str:
        return subprocess.run([tool, what, str(file)], capture_output=True, text=True, check=True).stdout

    return disassemble


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in LibriSpeech layout: train-tiny (12 utterances), dev-tiny (4), test-tiny (4).

    Three to seven words of a vocabulary of ten, spelled in tones with a little noise, so that a small model can
    learn them by heart. Treat it as read-only: every test of the session shares it.
    """
    root = tmp_path_factory.mktemp("tiny")
    for number, (part, utterances) in enumerate([("train-tiny", 12), ("dev-tiny", 4), ("test-tiny", 4)]):
        write_part(root / "LibriSpeech" / part, utterances, seed=number)
    return root


def write_part(folder: Path, utterances: int, seed: int) -> None:
    """Write `utterances` utterances of two speakers below `folder`."""
    draw = random.Random(seed)
    for speaker in (10 * seed + 1, 10 * seed + 2):
        chapter = folder / str(speaker) / "1"
        chapter.mkdir(parents=True)
        lines = []
        for index in range(utterances // 2):
            words = [draw.choice(WORDS) for _ in range(draw.randint(3, 7))]
            name = f"{speaker}-1-{index:04d}"
            soundfile.write(chapter / f"{name}.flac", tones(words, seed=draw.randrange(2**32)), SAMPLE_RATE_HZ)
            lines.append(f"{name} {' '.join(words)}\n")
        (chapter / f"{speaker}-1.trans.txt").write_text("".join(lines))


def tones(words: list[str], seed: int) -> np.ndarray:
    """The words as audio, (samples,): spelled, each letter 80 ms of its own tone, so that alignments are learnable."""
    noise = np.random.default_rng(seed)
    time_s = np.arange(SAMPLE_RATE_HZ * 8 // 100) / SAMPLE_RATE_HZ
    pieces = []
    for word in words:
        pieces += [np.sin(2 * np.pi * 250 * 1.17 ** LETTERS.index(letter) * time_s) for letter in word]
        pieces.append(np.zeros(SAMPLE_RATE_HZ * 6 // 100))
    margin = np.zeros(SAMPLE_RATE_HZ // 50)
    samples = 0.3 * np.concatenate([margin, *pieces, margin])
    return samples + 0.003 * noise.standard_normal(len(samples))


@pytest.fixture(scope="session")
def write_run(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory):
    """Writes a run folder with a checkpoint as `train.py` leaves it, of a tiny model with random weights.

    write_run(quant="int4", precision="rules", seed=1, options=("model.kernel=9",)) -> the run folder
    """

    def write(
        quant: str = "float", precision: str = "float", seed: int = 1, blend: float = 1.0, options: tuple[str, ...] = ()
    ) -> Path:
        folder = tmp_path_factory.mktemp(f"{quant}_seed{seed}")
        config = tiny_config(folder, tiny_corpus, f"quant={quant}", f"seed={seed}", *options)
        tokenizer = train_tokenizer(WORDS, config.data.tokens, 0, tiny_corpus / "cache")
        torch.manual_seed(seed)
        model = Transducer(config.model, config.features, tokenizer.size)
        for tensor in model.state_dict().values():  # trained weights are not the initial zeros and ones
            if tensor.is_floating_point():
                tensor += 0.01 * torch.randn_like(tensor).abs()
        write_checkpoint(folder, config, tokenizer, model, precision, blend)
        return folder

    return write


@pytest.fixture(scope="session")
def fitted_run(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run folder of a tiny float model that knows dev-tiny by heart, so that it is sure of every label.

    fitted_run("stateless" or "lstm") -> the run folder, made on the first call; with a number of frames, of a model
    that streams in chunks of so many
    """

    @cache
    def fit(predictor: str, chunk: int | None = None) -> Path:
        folder = tmp_path_factory.mktemp(f"fitted_{predictor}")
        few = ["model.subsampling_channels=8", "model.kernel=7", "model.dropout=0", f"model.predictor={predictor}"]
        if chunk is not None:
            few += [f"model.chunk_frames={chunk}", "model.left_chunks=2"]
        config = tiny_config(folder, tiny_corpus, "model.width=48", *few)
        data = SpeechDataModule(config.data, config.features, config.hardware, seed=1, root=folder)
        (batch,) = data.dataloader(["dev-tiny"])
        torch.manual_seed(1)
        model = Transducer(config.model, config.features, data.tokenizer.size)
        ctc = torch.nn.Linear(config.model.width, data.tokenizer.size)  # else it waits with labels, and is sure of none
        optimizer = torch.optim.Adam([*model.parameters(), *ctc.parameters()])
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=150)
        labels, label_lengths = batch.labels, batch.label_lengths
        for _ in range(150):
            noisy = batch.features + torch.randn_like(batch.features)
            logits, encoded, lengths = model(noisy, batch.feature_lengths, labels, label_lengths)
            log_probs = ctc(encoded).log_softmax(2).transpose(0, 1)
            loss = transducer_loss(logits, lengths, labels, label_lengths).sum()
            loss = loss + torch.nn.functional.ctc_loss(log_probs, labels, lengths, label_lengths, reduction="sum")
            optimizer.zero_grad()
            (loss / len(batch)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        write_checkpoint(folder, config, data.tokenizer, model)
        return folder

    return fit


@pytest.fixture(scope="session")
def compose_tiny():
    """compose_tiny(folder, corpus, *overrides) -> the configuration of a tiny run."""
    return tiny_config


def tiny_config(folder: Path, corpus: Path, *overrides: str) -> Config:
    """The configuration of a run in `folder` on `corpus`, as `train.py` composes it."""
    return composition.training_config([*TINY_RUN, f"run_dir={folder}", f"data.corpus_dir={corpus}", *overrides])


def write_checkpoint(
    folder: Path, config: Config, tokenizer: Tokenizer, model: Transducer, precision: str = "float", blend: float = 1.0
) -> None:
    """Write a model as `train.py` does."""
    saved = {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "nibble": {
            "config": plain(config),
            "tokenizer": tokenizer.model,
            "precision": precision,
            "blend": blend,
            "corpus": "tiny",
            "step": 3,
        },
    }
    saved["state_dict"]["ctc.weight"] = torch.zeros(2)
    (folder / "checkpoints").mkdir()
    torch.save(saved, folder / "checkpoints" / "last.ckpt")

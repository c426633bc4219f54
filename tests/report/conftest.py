"""Two runs of a few steps, finished and evaluated, on speech whose transcripts are made to break a page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nibble import provenance
from nibble.commands.report import main
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.hardware import HardwareConfig
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.sensitivity.table import DamageTable, write_table
from nibble.training.run import train

HOSTILE = "</SCRIPT><SCRIPT>ALERT(1)</SCRIPT> <IMG SRC=X ONERROR=ALERT(2)> &AMP; {{7*7}}"
OPTIONS = [
    "name=tiny",
    "logger=csv",
    "model.subsampling_channels=8",
    "optimizer.warmup_steps=2",
    "trainer.max_steps=8",
    "trainer.validate_every_steps=4",
    "trainer.log_every_steps=1",
    "trainer.log_layers_every_steps=2",
]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Commands of this project write below the folder they are called in."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def finished_runs(tiny_corpus: Path, compose_tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to be in: runs/tiny/float and runs/tiny/int4, and runs/records.jsonl. Treat it as read-only.

    The float run is evaluated at int4 without training as well, and its layers have damage.
    """
    folder = tmp_path_factory.mktemp("finished")
    corpus = shutil.copytree(tiny_corpus, folder / "speech")
    transcripts = min((corpus / "LibriSpeech" / "dev-tiny").rglob("*.trans.txt"))
    first, *others = transcripts.read_text().splitlines()
    transcripts.write_text("\n".join([f"{first.split()[0]} {HOSTILE}", *others]) + "\n")
    with inside(folder):
        for quant in ("float", "int4"):
            config = compose_tiny(Path("runs/tiny") / quant, corpus.relative_to(folder), f"quant={quant}", *OPTIONS)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(provenance.COMMAND, f"python train.py name=tiny quant={quant} 'data.corpus_dir=<b>'")
                train(config)
        int4 = QuantConfig("int4", [Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())])
        hardware = HardwareConfig(threads=1, workers=0)
        evaluate_checkpoints(EvaluateConfig(checkpoint="runs/tiny/float", quant=int4, hardware=hardware))
        damage = {"encoder.a": {2: 0.5, 8: 1e-5}, "encoder.b": {2: -0.1, 8: 0.0}}
        write_table(
            DamageTable.of("mine", "loss", "6 utterances", damage, {"encoder.a": 8, "encoder.b": 2}),
            Path("runs/tiny/float"),
        )
    return folder


@pytest.fixture(scope="session")
def page_file(finished_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of both runs."""
    output = tmp_path_factory.mktemp("page") / "report.html"
    with inside(finished_runs):
        assert main(["runs/tiny", f"output={output}"]) == 0
    return output

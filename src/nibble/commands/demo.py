"""The table of `make demo`: what each precision costs, and what training at it buys.

python -m nibble.commands.demo [RUN]    RUN is a staged run; the latest of experiment=demo if left out
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nibble import stopping
from nibble.commands import transcribe
from nibble.data.audio import source
from nibble.data.datamodule import SpeechDataModule
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.hardware import HardwareConfig
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.report.precisions import precisions
from nibble.report.tables import percent
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.locate import latest_run
from nibble.runs.records import Record
from nibble.runs.run_folder import RunFolder
from nibble.runs.speech import speech
from nibble.terminal import Console, Table

_UNTRAINED_BITS = (8, 4, 2)


def demo_table(records: Sequence[Record]) -> Table:
    """One row a precision: trained at it (the end of a phase of the run), and the float weights rounded to it.

    Args:
        records: of one run, on the same utterances.
    """
    rows = []
    for precision in precisions(records):
        shown = precision.shown.last
        rows.append(
            [
                precision.quant,
                percent(precision.trained.wer, 1) if precision.trained else "",
                percent(precision.untrained.wer, 1) if precision.untrained else "",
                f"{shown.bundle_bytes:,}",
                f"{shown.ratio:.2f}×",
                f"{precision.shown.rtf:.3f}",
            ]
        )
    return Table(
        ("weights", "trained", "not trained", "bytes", "smaller", "RTF"),
        rows,
        title="What low precision costs and what training at it buys: WER in %, 95 %",
        note="Trained rows are the ends of the phases of one run, float first: each row below has trained longer. "
        "Not trained: the weights of the float row, rounded.",
    )


def evaluate_demo(run: Path, records: str | None, hardware: HardwareConfig) -> list[Record]:
    """Evaluate the phases of a staged run as trained, and its float weights at 8, 4 and 2 bits without training.

    On the test parts: voices and sentences that neither training nor validation has heard.

    Raises:
        UserError: the run is not staged, or not finished.
    """
    phases = RunFolder(run).phase_checkpoints()
    floats = [phase for phase in phases if phase.stem.endswith("_float")]
    if not floats:
        raise UserError(f"{run} has no checkpoint of a float phase; train with schedule=staged")
    trained = EvaluateConfig(checkpoint=[*map(str, phases), str(run)], part="test", records=records, hardware=hardware)
    results = evaluate_checkpoints(trained)
    for bits in _UNTRAINED_BITS:
        rule = Rule(weight=WeightSpec(bits=bits), activation=ActivationSpec(bits=8))
        quant = QuantConfig(name=f"int{bits}", rules=[rule])
        results += evaluate_checkpoints(replace(trained, checkpoint=str(floats[-1]), quant=quant))
    return [result.record for result in results]


def transcribe_one(run: Path) -> None:
    """Show the command that recognises a file, with the first test utterance of the run's corpus, and run it."""
    loaded = load_checkpoint(run)
    config, root = speech(loaded.config, run)
    data = SpeechDataModule(config.data, config.features, HardwareConfig(), config.seed, root)
    cut = next(iter(data.cuts(data.parts("test"))))
    words = [f"model={RunFolder(run).bundle}", str(source(cut))]
    print(f"$ python -m nibble.transcribe {' '.join(words)}", flush=True)
    transcribe.main(words)
    print(f"(said was: {cut.supervisions[0].text})")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if there is no such run."""
    parser = argparse.ArgumentParser(prog="python -m nibble.commands.demo", description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="run folder")
    parser.add_argument("--records", default="runs/records.jsonl", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        run = options.run or latest_run("demo")
        records = evaluate_demo(run, options.records, HardwareConfig())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Console().print(demo_table(records))
    transcribe_one(run)
    return 0


if __name__ == "__main__":
    stopping.run(main)

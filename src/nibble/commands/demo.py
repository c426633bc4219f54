"""Print the table of `make demo`: the error rate, size and speed of each precision, trained and not trained.

python -m nibble.commands.demo
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nibble import stopping
from nibble.commands import transcribe
from nibble.commands.words import run_words
from nibble.data.audio import source
from nibble.data.datamodule import SpeechDataModule
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import Backend, EvaluateConfig
from nibble.hardware import HardwareConfig
from nibble.percent import percent_interval
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.report.precisions import precisions
from nibble.report.runs import find_runs
from nibble.report.tables import steps_differ
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.locate import RUNS
from nibble.runs.records import Record
from nibble.runs.run_folder import RunFolder
from nibble.runs.speech import speech
from nibble.terminal import Console, Table

_UNTRAINED_BITS = (8, 4, 2)


def demo_table(records: Sequence[Record]) -> Table:
    """One row a precision: trained at it, and the weights of the trained float row rounded to it.

    Args:
        records: of runs from one start, on the same utterances.
    """
    found = precisions(records)
    unequal = steps_differ(precision.trained for precision in found if precision.trained)
    rows = []
    for precision in found:
        shown = precision.shown.last
        rows.append(
            [
                precision.quant,
                percent_interval(precision.trained.wer, 1) if precision.trained else "",
                percent_interval(precision.untrained.wer, 1) if precision.untrained else "",
                f"{shown.bundle_bytes:,}",
                f"{shown.ratio:.2f}×",
                f"{precision.shown.rtf:.3f}",
                *([precision.trained.steps if precision.trained else ""] if unequal else []),
            ]
        )
    return Table(
        ("weights", "trained", "not trained", "bytes", "smaller", "RTF", *(["steps"] if unequal else [])),
        rows,
        title="Precisions, trained and not trained: WER in %, 95 %",
        note=("" if unequal else "Trained rows have had equally many steps. ")
        + "Not trained: the weights of the trained float row, rounded.",
    )


def latest_of_each(folder: Path) -> dict[str, Path]:
    """Precision -> the run below `folder` that was finished last, float first.

    Raises:
        UserError: no run of float weights is finished there.
    """
    runs, _ = find_runs([folder])
    latest = {run.config.quant.name: run.folder for run in sorted(runs, key=lambda run: run.finished_s)}
    if "float" not in latest:
        raise UserError(f"{folder} has no finished run of quant=float; make demo trains one")
    return {"float": latest.pop("float"), **latest}


def evaluate_demo(runs: Mapping[str, Path], records: str | None, hardware: HardwareConfig) -> list[Record]:
    """Evaluate the bundles of runs, and the float run at 8, 4 and 2 bits without training.

    On the test parts: voices and sentences that neither training nor validation has heard.

    Args:
        runs: of `latest_of_each`.
        records: file that the results are added to; None for none.
        hardware: where it runs.
    """
    trained = EvaluateConfig(checkpoint=[*map(str, runs.values())], part="test", records=records, hardware=hardware)
    results = evaluate_checkpoints(replace(trained, backend=Backend.bundle))
    for bits in _UNTRAINED_BITS:
        rule = Rule(weight=WeightSpec(bits=bits), activation=ActivationSpec(bits=8))
        quant = QuantConfig(name=f"int{bits}", rules=[rule])
        results += evaluate_checkpoints(replace(trained, checkpoint=str(runs["float"]), quant=quant))
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


@dataclass
class DemoOptions:
    """The options of `python -m nibble.commands.demo`."""

    folder: str = str(RUNS / "demo")  # with a run of experiment=demo for each precision
    records: str | None = "runs/records.jsonl"  # file that the evaluations are added to; null: none


def main(words: list[str] | None = None) -> int:
    """Returns 0, or 1 if there are no such runs."""
    return run_words(_show, DemoOptions, __doc__, words)


def _show(options: DemoOptions) -> None:
    runs = latest_of_each(Path(options.folder))
    records = evaluate_demo(runs, options.records, HardwareConfig())
    Console().print(demo_table(records))
    transcribe_one(runs.get("int4", runs["float"]))


if __name__ == "__main__":
    stopping.run(main)

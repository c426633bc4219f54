"""Evaluates a run at its end, on the bundle that it leaves."""

from pathlib import Path

from nibble.evaluation.evaluate import evaluate_loaded
from nibble.evaluation.options import EvaluateConfig
from nibble.evaluation.printing import print_results
from nibble.evaluation.result import Result
from nibble.evaluation.size import Size
from nibble.runs.bundle import bundle_bytes, write_bundle
from nibble.runs.card import Measured, write_card
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import float_parameters
from nibble.runs.run_folder import RunFolder
from nibble.terminal import Console


def evaluate_run(folder: Path, console: Console | None = None) -> Result:
    """Write the bundle of a trained run, evaluate it on the dev parts, and write the result on its card.

    Args:
        folder: the run; its best checkpoint is used, else its last.
        console: prints the result there; None prints nothing.

    Returns:
        what was measured; no record is appended.
    """
    trained, bundle = load_checkpoint(folder), RunFolder(folder).bundle
    config = trained.config
    written = write_bundle(trained, bundle)
    if console is not None:  # before the evaluation, which may take long
        size = Size(float_parameters(config, trained.tokenizer.size), written, [])
        console.print(f"{bundle}: {written:,} bytes, {size.ratio:.2f}× smaller than float32")
    options = EvaluateConfig(
        checkpoint=str(bundle),
        hardware=config.hardware,
        max_utterances=config.trainer.max_validation_utterances,
        records=None,
    )
    # Without its memory in use, which takes a process of its own: evaluate.py measures that.
    (result,) = evaluate_loaded(load_checkpoint(bundle), options)
    record = result.record
    measured = Measured(
        corpus=record.corpus,
        part=record.part,
        wer=record.wer,
        wer_ci95=record.wer_ci95,
        words=record.reference_words,
        utterances=len(record.utterance_errors),
        backend=record.backend,
    )
    write_card(bundle, trained, bundle_bytes(bundle), measured)
    if console is not None:
        print_results([result], console)
    return result

"""Logs the result of a finished run beside its curves: numbers for every logger; for W&B speech and the bundle too."""

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.loggers import Logger, WandbLogger

from nibble.evaluation.result import Result
from nibble.runs.records import Record


def log_result(loggers: Sequence[Logger], bundle: Path, result: Result, step: int) -> None:
    """Log what evaluating `bundle`, a run's after `step` steps, gave."""
    for logger in loggers:
        logger.log_metrics(scalars(result.record), step=step)
        logger.save()
        if isinstance(logger, WandbLogger):
            from nibble.training.wandb_result import (  # imports wandb: not before it is needed
                artifact,
                worst_utterances,
            )

            logger.experiment.log(worst_utterances(bundle, result))
            logger.experiment.log_artifact(artifact(bundle, result.record))


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a record by which runs are compared."""
    low, high = record.wer_ci95
    memory = {} if record.memory is None else {"result/memory_bytes": float(record.memory.ran_bytes)}
    return {
        "result/wer": record.wer,
        "result/wer_low": low,
        "result/wer_high": high,
        "result/bundle_bytes": float(record.bundle_bytes),
        "result/ratio": record.ratio,
        "result/rtf": record.rtf,
        **memory,
    }

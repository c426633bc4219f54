"""Collects everything that the page shows, as plain data for its template and script."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import OmegaConf

from nibble.data.batch import Batch
from nibble.errors import UserError
from nibble.evaluation.listening import listen
from nibble.progress import track
from nibble.report.comparison import Comparison, Row, Speech
from nibble.report.formats import cells
from nibble.report.page.charts import ONE_RUN
from nibble.report.page.curves import curve, phases, read_metrics, sqnr
from nibble.report.page.front import apart, pareto_front
from nibble.report.page.layers import histograms
from nibble.report.page.utterances import recognised, shown, worst
from nibble.report.runs import Run
from nibble.report.tables import verdict
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded
from nibble.runs.method import Method
from nibble.sensitivity.table import DamageTable, read_tables

Plain = dict[str, Any]
COSTS = ("bytes", "memory", "rtf")  # what a chart of the page has errors against; memory is None in older records


@dataclass
class Contents:
    """The contents of one page. All rates are in percent."""

    rows: list[Plain]  # in the order of the table
    runs: list[Plain]  # by name
    utterances: dict[str, Plain]  # the worst, by id
    damage: list[Plain]  # tables of sensitivities
    silence: str  # why there are no utterances to show; empty if there are some


def collect(comparison: Comparison, max_utterances: int) -> Contents:
    """Read what the runs of a comparison left, and let each recognise the worst utterances once more.

    Args:
        comparison: of finished runs.
        max_utterances: how many to show; 0 for none.

    Raises:
        UserError: a checkpoint, a metrics.csv or a table of sensitivities is damaged.
    """
    runs = comparison.runs
    contents = Contents(_rows(comparison), [], {}, [], "")
    ids = worst((record for run in runs if (record := comparison.own(run))), max_utterances)
    heard = _Heard(comparison.speech, ids, "No run made an error." if max_utterances else "Left out: utterances=0.")
    for run in track(runs, "reading runs", len(runs)):
        loaded = load_checkpoint(run.folder)
        contents.runs.append(_run(comparison, run) | {"layers": histograms(loaded.model), "heard": heard.by(loaded)})
        contents.damage += [_damage(run, table) for table in read_tables(run.folder)]
    contents.utterances, contents.silence = heard.shown, heard.silence
    return contents


class _Heard:
    """The worst utterances, read once for all runs with the same features."""

    def __init__(self, speech: Speech, ids: Sequence[str], none: str) -> None:
        self.speech = speech
        self.ids = ids
        self.silence = "" if ids else none
        self.shown: dict[str, Plain] = {}
        self._batches: dict[int, list[Batch]] = {}  # mel bins -> utterances

    def by(self, loaded: Loaded) -> dict[str, list[list[str]]]:
        """The transcripts of a run; none if the utterances cannot be read here."""
        if self.silence:
            return {}
        mel_bins = loaded.config.features.mel_bins
        if mel_bins not in self._batches:
            try:
                self._batches[mel_bins] = listen(loaded, self.speech.part, self.ids)
            except UserError as error:
                self.silence = f"The utterances cannot be shown: {error}."
                return {}
            self.shown = self.shown or shown(self._batches[mel_bins])
        return recognised(loaded, self._batches[mel_bins])


def _rows(comparison: Comparison) -> list[Plain]:
    """Each row; which are on a front, and named: the systems of one run have a front of their own."""
    rows = [_row(comparison, row) | {"row": number} for number, row in enumerate(comparison.rows)]
    for cost in COSTS:
        known = [row for row in rows if row[cost] is not None]
        points = [(row[cost], row["wer"]) for row in known]
        fronts = [
            [of[place] for place in pareto_front([points[number] for number in of])]
            for one_run in (False, True)
            if (of := [number for number, row in enumerate(known) if row["one_run"] is one_run])
        ]
        named = apart(
            points, sorted({number for front in fronts for number in front}, key=lambda number: points[number])
        )
        for number, row in enumerate(known):
            on_front = any(number in front for front in fronts)
            row |= {f"front_{cost}": on_front, f"named_{cost}": number in named}
    return rows


def _row(comparison: Comparison, row: Row) -> Plain:
    weights, how, _, wer, difference, size, smaller, memory, rtf = cells(comparison, row)
    names = [run.name for run in comparison.runs]
    value, low, high = (100 * rate for rate in row.wer)
    return {
        "weights": weights,
        "how": how,
        "kind": _kind(row),
        "one_run": _kind(row) == ONE_RUN,
        "runs": [(seed, names.index(run.name)) for seed, run in zip(row.system.seeds, row.runs, strict=True)],
        "wer": value,
        "low": low,
        "high": high,
        "bytes": row.last.bundle_bytes,
        "ratio": row.last.ratio,
        "memory": row.system.memory_bytes,
        "rtf": row.system.rtf,
        "steps": row.last.steps,
        "difference": 100 * row.difference[0] if row.difference else None,
        "verdict": verdict(row.difference),
        "cells": {"wer": wer, "difference": difference, "bytes": size, "ratio": smaller, "memory": memory, "rtf": rtf}
        | {"steps": row.system.steps},
        "description": f"{', '.join(filter(None, [weights, how]))}: WER {wer} %, {size} bytes, "
        + (f"{memory} MB in use, " if memory else "")
        + f"RTF {rtf}",
    }


def _kind(row: Row) -> str:
    if row.in_one_run and row.last.method.is_trained:
        return ONE_RUN
    return "float" if row.last.method is Method.float else "trained" if row.last.method.is_trained else "not trained"


def _run(comparison: Comparison, run: Run) -> Plain:
    metrics, record = read_metrics(run.folder), comparison.own(run)
    return {
        "name": run.name,
        "wer": None if record is None else round(100 * record.wer, 2),
        "command": run.command or (record.command if record else ""),
        "config": OmegaConf.to_yaml(OmegaConf.create(run.settings)),
        "origin": f"{record.hardware}; commit {record.commit[:12]}" if record else "",
        "phases": [phase._asdict() for phase in phases(run.config, metrics)],
        "loss": curve(metrics, "train_loss"),
        "errors": [[step, 100 * rate] for step, rate in curve(metrics, "val_wer")],
        "sqnr": sqnr(metrics),
    }


def _damage(run: Run, table: DamageTable) -> Plain:
    return {"run": run.name, **asdict(table)}

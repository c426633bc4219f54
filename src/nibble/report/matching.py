"""Matches records with the runs that they belong to."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nibble.config import plain
from nibble.data.options import Condition
from nibble.evaluation.options import Search
from nibble.provenance import config_hash
from nibble.report.runs import Run
from nibble.runs.records import Record


class Measurement(NamedTuple):
    """A record and its run."""

    run: Run
    record: Record


def match(runs: Sequence[Run], records: Sequence[Record]) -> list[Measurement]:
    """The records of `runs`, in the order of `records`.

    A record of a trained precision belongs to the run with the same configuration; of equal runs, to the last one. Runs
    that are equal but for the folder of their speech, such as folds, are told apart by the corpus or by the command. A
    record of float weights quantized without training belongs to the run that its command names, else to the only float
    run with its experiment, model and seed, else to the only run with these.
    """
    by_hash: dict[str, dict[str | None, Run]] = {}  # -> folder of the speech -> run
    tasks = {(one.part, one.inference.beam_width, one.condition, one.windowed) for one in records}
    for run in sorted(runs, key=lambda run: run.finished_s):
        for one in _hashes(run, tasks):
            by_hash.setdefault(one, {})[run.config.data.corpus_dir] = run
    latest = list({run.name: run for alike in by_hash.values() for run in alike.values()}.values())
    found = []
    for record in records:
        alike = list(by_hash.get(record.config_hash, {}).values())
        of = _trained_run(alike, record) if record.method.is_trained else _float_run(latest, record)
        if of is not None:
            found.append(Measurement(of, record))
    return found


def unmatched(runs: Sequence[Run], records: Sequence[Record], measured: Sequence[Measurement]) -> list[Record]:
    """Records whose command names one of `runs`, but which are not among what `match` found for them."""
    matched = {id(one.record) for one in measured}
    folders = {run.folder.name for run in runs}
    return [one for one in records if id(one) not in matched and folders & _words(one.command)]


def _words(command: str) -> set[str]:
    """The parts of a command's words: names of folders, options, values."""
    return set(re.split(r"[/,=\[\]\s'\"]", command))


def _trained_run(alike: Sequence[Run], record: Record) -> Run | None:
    """The run of a record among those with its configuration, which lie in order of time; None if there is none."""
    speech = [run for run in alike if Path(run.config.data.corpus_dir or "").resolve().name == record.corpus]
    named = [run for run in alike if run.folder.name in _words(record.command)]
    return next((found[-1] for found in (speech, named, alike) if found), None)


def _hashes(run: Run, tasks: set[tuple[str, int | None, Condition, int]]) -> Iterator[str]:
    """The possible values of `config_hash` in a run's records: of its options as written, and with later options.

    A record of a smaller network (`model.sizes`) has the options of a run of that size alone.
    """
    for settings in _settings(run):
        for part, beam_width, condition, windowed in tasks:
            how: dict[str, Any] = {"parts": part.split("+"), "decoding": Search.greedy.value}
            if beam_width is not None:
                how |= {"decoding": Search.beam.value, "beam_width": beam_width}
            if condition is not Condition.unchanged:
                how["condition"] = condition.value
            if windowed:
                how["windowed"] = windowed
            for most in {None, run.config.trainer.max_validation_utterances}:
                yield config_hash({**settings, "evaluation": {**how, "max_utterances": most}})


def _settings(run: Run) -> Iterator[dict[str, Any]]:
    for settings in (run.settings, plain(run.config)):
        yield settings
        for size in run.sizes:
            model = plain(replace(run.config, model=size))["model"]
            yield {**settings, "model": {name: model[name] for name in settings["model"]}}


def _float_run(runs: Sequence[Run], record: Record) -> Run | None:
    """The run whose float weights were rounded for a record; None if that is ambiguous."""
    of = (record.experiment, record.model, record.seed)
    alike = [run for run in runs if any((run.config.name, name, run.config.seed) == of for name in _models(run))]
    given = re.findall(r"checkpoint=(\S+)", record.command)
    named = [run for run in alike if run.folder.name in re.split(r"[/,\[\]]", "/".join(given))]
    floats = [run for run in alike if not run.config.quant.rules]
    return next((found[0] for found in (named, floats, alike) if len(found) == 1), None)


def _models(run: Run) -> list[str]:
    """The names of its networks in records."""
    return [run.config.model.name, *(size.name for size in run.sizes)]

"""Reads the curves of a run from its metrics.csv, and the phases of its schedule in steps."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nibble.config import Config
from nibble.errors import UserError
from nibble.quant.spec import Phase as PhaseConfig
from nibble.quant.spec import Precision, ScheduleConfig
from nibble.runs.run_folder import RunFolder

_MAX_POINTS = 250  # of a curve; more are averaged
_SQNR = "/sqnr_db"  # ending of the names of the layers' signal-to-quantization-noise ratios

Metrics = dict[str, list[tuple[int, float]]]  # name -> (step, value)


class Phase(NamedTuple):
    """A stretch of training at one precision."""

    start: float  # steps
    end: float
    name: str


def read_metrics(folder: Path) -> Metrics:
    """The metrics that Lightning's CSV logger wrote; none if it was off.

    Raises:
        UserError: the file is not what that logger writes.
    """
    path = RunFolder(folder).metrics
    if not path.is_file():
        return {}
    metrics: Metrics = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        metrics.setdefault(name, []).append((int(row["step"]), float(value)))
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); remove it, and the page has no curves of this run") from error
    return metrics


def curve(metrics: Metrics, name: str) -> list[list[float]]:
    """[step, value] of one metric, averaged to a limited number of points; values that are not finite are left out."""
    points = [(step, value) for step, value in metrics.get(name, []) if math.isfinite(value)]
    parts = np.array_split(np.array(points).reshape(-1, 2), min(len(points), _MAX_POINTS) or 1)
    return [[round(float(step)), _short(value)] for step, value in (part.mean(axis=0) for part in parts if len(part))]


def sqnr(metrics: Metrics) -> list[list[float]]:
    """[step, 10th percentile, median, 90th percentile] over the layers of the weights' SQNR, in dB."""
    at: dict[int, list[float]] = {}
    for name, points in metrics.items():
        if name.endswith(_SQNR):
            for step, value in points:
                if math.isfinite(value):
                    at.setdefault(step, []).append(value)
    return [[step, *map(_short, np.percentile(at[step], [10, 50, 90]))] for step in sorted(at)]


def phases(config: Config, metrics: Metrics) -> list[Phase]:
    """The schedule of a run, the last phase up to its last step; none without that step."""
    steps = config.trainer.max_steps or max((step + 1 for of in metrics.values() for step, _ in of), default=0)
    schedule = config.schedule if config.quant.rules else ScheduleConfig([PhaseConfig(precision=Precision.float)])
    found: list[Phase] = []
    for phase in schedule.phases if steps else []:
        name = _name(config, phase.together or [phase.precision])
        if found:
            found[-1] = found[-1]._replace(end=phase.at * steps)
        if not found or found[-1].name != name:
            found.append(Phase(phase.at * steps, steps, name))
    return [*found[:-1], *(last._replace(end=steps) for last in found[-1:])]


def _name(config: Config, precisions: Sequence[Precision]) -> str:
    return ", ".join(config.quant.name if one is Precision.rules else one.value for one in precisions)


def _short(value: float) -> float:
    """Round to four digits, which are enough to draw."""
    return float(f"{value:.4g}")

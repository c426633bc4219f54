"""One JSON line per measurement: in runs/bench.jsonl, or in results/bench.jsonl if it is published."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nibble.bench.gpu_counts import Counts
from nibble.memory import Footprint
from nibble.plain import build_lines
from nibble.runs.records import append_line


@dataclass(frozen=True)
class Measurement:
    """A contender compared with a baseline in one run. The order of the fields is the order in the file."""

    bench: str  # what is measured: size
    case: str  # on what: conformer_l
    contender: str  # int4
    baseline: str  # float32
    ratio: float  # of bytes on disk: baseline / contender; of memory and time: contender / baseline
    median_ms: float | None  # of the contender, on the clock of the ratio; null where nothing is timed
    threads: int  # CPU threads
    hardware: str
    commit: str
    command: str
    bytes: int | None = None  # of the contender, on disk, or at its peak in memory
    clock: str | None = None  # that the ratio is measured with: cpu (time of all threads of the process) or wall
    wall_ms: float | None = None  # median time until the contender returned
    rounds: int | None = None  # every contender ran once in each round
    launches: int | None = None  # kernels that one call of the contender starts on a GPU
    synchronisations: int | None = None  # how often the CPU waits for the GPU in it
    load_s: float | None = None  # time to load the contender, in a process of its own, on one thread
    loaded_bytes: int | None = None  # resident memory after loading, above that of the process before
    ran_bytes: int | None = None  # after three runs
    peak_bytes: int | None = None  # the most while loading and running


def append(path: Path, measurement: Measurement) -> None:
    """Add one line.

    Raises:
        UserError: the file cannot be written; it is then as it was before.
    """
    append_line(path, asdict(measurement), "give another file: records=FILE")


def read(path: Path) -> list[Measurement]:
    """All measurements of a file, oldest first; none if there is no file.

    Raises:
        UserError: a line is not a measurement; the text gives the line.
    """
    return build_lines(Measurement, path, "a measurement", "delete that line")


def with_fields(measurements: Sequence[Measurement], fields: Mapping[str, Mapping[str, Any]]) -> list[Measurement]:
    """Measurements with more of their fields set, by contender: bytes, counts of a GPU, a footprint."""
    return [replace(found, **fields.get(found.contender, {})) for found in measurements]


def with_sizes(measurements: Sequence[Measurement], sizes_bytes: Mapping[str, int]) -> list[Measurement]:
    """Measurements with the sizes of the contenders that are files."""
    return with_fields(measurements, {name: {"bytes": size} for name, size in sizes_bytes.items()})


def with_footprints(measurements: Sequence[Measurement], footprints: Mapping[str, Footprint]) -> list[Measurement]:
    """Measurements with memory and load time of the contenders that were loaded in a process of their own."""
    return with_fields(measurements, {name: asdict(footprint) for name, footprint in footprints.items()})


def with_counts(measurements: Sequence[Measurement], counts: Mapping[str, Counts]) -> list[Measurement]:
    """Measurements with what each contender does on a GPU."""
    return with_fields(measurements, {name: of._asdict() for name, of in counts.items()})


def _megabytes(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.0f}"


def cells(measurements: Sequence[Measurement]) -> list[list[str]]:
    """Header and rows of a table, without columns that have no value."""
    columns = [
        ["case", *(found.case for found in measurements)],
        ["contender", *(f"{found.contender} against {found.baseline}" for found in measurements)],
        ["bytes", *("" if found.bytes is None else f"{found.bytes:,}" for found in measurements)],
        ["median ms", *("" if found.median_ms is None else f"{found.median_ms:.2f}" for found in measurements)],
        ["wall ms", *("" if found.wall_ms is None else f"{found.wall_ms:.2f}" for found in measurements)],
        ["launches", *("" if found.launches is None else f"{found.launches:,}" for found in measurements)],
        ["waits", *("" if found.synchronisations is None else str(found.synchronisations) for found in measurements)],
        ["load s", *("" if found.load_s is None else f"{found.load_s:.2f}" for found in measurements)],
        ["loaded MB", *(_megabytes(found.loaded_bytes) for found in measurements)],
        ["after runs MB", *(_megabytes(found.ran_bytes) for found in measurements)],
        ["peak MB", *(_megabytes(found.peak_bytes) for found in measurements)],
        ["ratio", *(f"{found.ratio:.2f}" for found in measurements)],
    ]
    return [list(row) for row in zip(*(column for column in columns if any(column[1:])), strict=True)]

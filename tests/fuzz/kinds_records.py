"""What evaluations and runs leave: records, benchmarks, jobs of a sweep, and run.json."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import Kind, Write
from mutations import RAW, as_json, broken, hostile
from small import small_config

from nibble.bench import records as bench
from nibble.commands import sweep
from nibble.config import from_plain, plain
from nibble.evaluation.printing import difference
from nibble.percent import percent
from nibble.plain import parse
from nibble.report import benchmarks, published
from nibble.report.precisions import summary
from nibble.report.results import render
from nibble.runs import records, run_file
from nibble.runs.run_folder import RUN_FILE

Plain = dict[str, Any]


def record(**changes: Any) -> Plain:
    """A record as JSON has it."""
    values: Plain = {
        "experiment": "digits",
        "corpus": "digits",
        "part": "dev-digits",
        "model": "conformer_xxs",
        "parameters": 1000,
        "quant": "float",
        "method": "float",
        "seed": 1,
        "wer": 0.25,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 0,
        "reference_words": 4,
        "wer_ci95": [0.0, 0.5],
        "utterance_errors": [["a", 1, 2], ["b", 0, 2]],
        "bundle_bytes": 4500,
        "float32_bytes": 4000,
        "ratio": 4000 / 4500,
        "rtf": 0.01,
        "peak_bytes": 2**30,
        "threads": 2,
        "backend": "float greedy",
        "hardware": "a CPU, 2 cores",
        "commit": "0" * 40,
        "command": "python evaluate.py checkpoint=runs/a",
        "config_hash": "abc",
        "memory": {"load_s": 0.5, "loaded_bytes": 2**24, "ran_bytes": 2**25, "peak_bytes": 2**26},
    }
    return {**values, **changes}


INT4 = {"quant": "int4", "method": "qat", "config_hash": "def", "backend": "native greedy", "bundle_bytes": 500}
RECORDS = [
    record(),
    record(**INT4),
    record(**INT4, seed=2),
    record(quant="int4", method="ptq", backend="onnx w4 beam8"),
]
BENCH = [
    {
        "bench": "gemm",
        "case": "512 x 512",
        "contender": "int4",
        "baseline": "float32",
        "ratio": 0.5,
        "median_ms": 1.5,
        "threads": 1,
        "hardware": "a CPU",
        "commit": "0" * 40,
        "command": "python -m nibble.bench gemm",
        "clock": "cpu",
        "wall_ms": 2.0,
        "rounds": 7,
    },
    {
        "bench": "size",
        "case": "conformer_l",
        "contender": "int4",
        "baseline": "float32",
        "ratio": 7.5,
        "median_ms": None,
        "threads": 1,
        "hardware": "a CPU",
        "commit": "0" * 40,
        "command": "python -m nibble.bench size",
        "bytes": 10**7,
    },
]
JOBS = [
    {"number": 0, "overrides": ["seed=1"], "state": "started", "folder": "", "problem": ""},
    {"number": 0, "overrides": ["seed=1"], "state": "complete", "folder": "nowhere", "problem": ""},
    {"number": 1, "overrides": ["seed=2"], "state": "failed", "folder": "", "problem": "no [red]corpus[/red]"},
]
PUBLISHED = [
    {"system": "S", "weights": "4 bits", "speech": "read", "errors": "5 %", "size": "1 MB", "source": "A"}
    | {"comparable": True, "rates": {"test-clean": 5.0}, "size_bytes": 1_000_000}
]


def lines_kind(name: str, values: Sequence[Plain], load: Callable[[Path], object]) -> Kind:
    """A file of one JSON text a line, called `lines`."""

    def cases(seed: int, count: int) -> Iterator[tuple[str, Write]]:
        for number in range(count):
            draw = Random(f"{name} {seed} {number}")
            lines = [json.dumps(value).encode() for value in values]
            wrong = "intact" if number == 0 else _spoil(lines, values, draw)
            content = b"\n".join(lines) + b"\n"
            if number and draw.random() < 0.25:
                what, content = broken(content, draw)
                wrong += f", {what}"
            yield wrong, lambda folder, content=content: (folder / "lines").write_bytes(content)

    return Kind(name, cases, load)


def _spoil(lines: list[bytes], values: Sequence[Plain], draw: Random) -> str:
    """Change a line, and say how."""
    number = draw.randrange(len(lines))
    if draw.random() < 0.1:
        lines[number] = draw.choice(RAW)
        return f"line {number} is {lines[number][:40]!r}"
    wrong, value = hostile(values[number], draw)
    lines[number] = as_json(value, draw).replace(b"\n", b"")
    return f"line {number}: {wrong}"


def said(folder: Path) -> list[Any]:
    """What another reader of JSON finds in the lines."""
    return [json.loads(line) for line in (folder / "lines").read_bytes().splitlines()]


def same(found: Any, expected: Any) -> None:
    """What was loaded is what the file says; options that it leaves out have their defaults."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            same(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == expected, f"{found!r} was loaded, and the file says {expected!r}"


def load_records(folder: Path) -> None:
    found = records.read(folder / "lines")
    same([asdict(one) for one in found], said(folder))
    render(found)
    summary(found)
    for one in found:
        difference(one, found[0])
        percent(one.wer)


def load_benchmarks(folder: Path) -> None:
    found = bench.read(folder / "lines")
    same([asdict(one) for one in found], said(folder))
    benchmarks.render(found)


def load_jobs(folder: Path) -> None:
    (folder / "lines").rename(folder / sweep.FILE)
    found = sweep.read(folder)
    (folder / sweep.FILE).rename(folder / "lines")
    last = {line["number"]: line for line in said(folder)}
    same([asdict(one) for one in found], [last[number] for number in sorted(last)])


def load_published(folder: Path) -> None:
    found = published.read(folder / "lines")
    same([asdict(one) for one in found], said(folder))
    published.render(found)


@cache
def run_json() -> Plain:
    return {
        "identity": "0123456789ab",
        "command": "python train.py",
        "config": plain(small_config()),
        "record": record(),
    }


def run_cases(seed: int, count: int) -> Iterator[tuple[str, Write]]:
    for number in range(count):
        draw = Random(f"run.json {seed} {number}")
        wrong, content = "intact", json.dumps(run_json()).encode()
        if number:
            wrong, content = draw.choice([_hostile_run, _hostile_run, _broken_run, _raw_run])(content, draw)
        yield wrong, lambda folder, content=content: (folder / RUN_FILE).write_bytes(content)


def _hostile_run(_content: bytes, draw: Random) -> tuple[str, bytes]:
    part = draw.choice(["all", "config", "record"])
    wrong, values = hostile(run_json() if part == "all" else run_json()[part], draw)
    return f"{part}: {wrong}", as_json(values if part == "all" else {**run_json(), part: values}, draw)


def _broken_run(content: bytes, draw: Random) -> tuple[str, bytes]:
    return broken(content, draw)


def _raw_run(_content: bytes, draw: Random) -> tuple[str, bytes]:
    raw = draw.choice(RAW)
    return f"{raw[:40]!r}", raw


def load_run(folder: Path) -> None:
    run = run_file.read(folder)
    expected = json.loads((folder / RUN_FILE).read_bytes())
    same(asdict(run), expected)
    found = run_file.record(folder)
    if found is not None:
        same(asdict(found), expected["record"])
    same(plain(from_plain(parse(json.dumps(run.config)))), expected["config"])


KINDS = [
    lines_kind("records", RECORDS, load_records),
    lines_kind("benchmarks", BENCH, load_benchmarks),
    lines_kind("jobs", JOBS, load_jobs),
    lines_kind("published", PUBLISHED, load_published),
    Kind("run_json", run_cases, load_run),
]

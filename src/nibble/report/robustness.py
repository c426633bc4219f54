"""Tables of error rates on changed speech: silence around it, other levels, noise, a telephone."""

from collections.abc import Sequence

from nibble.data.options import Condition
from nibble.percent import percent_interval, points, points_interval
from nibble.report.tables import (
    PLAIN_BACKENDS,
    System,
    baseline,
    escaped,
    markdown,
    order,
    steps_differ,
    systems,
    verdict,
)
from nibble.runs.method import Method
from nibble.runs.records import Record

_PLAIN = Condition.unchanged
_INTRODUCTION = """\
The same utterances, changed: `python evaluate.py checkpoint=[RUN,RUN] part=test condition=all`. **more**: WER minus \
that of the unchanged speech, in points. Silence alone takes the place of the speech; its rate is of words that were \
recognised in it, per word of the speech.
"""


def render(records: Sequence[Record]) -> str:
    """A section for each experiment and part that was evaluated under conditions; empty if none was."""
    tasks: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        tasks.setdefault((record.experiment, record.corpus, record.part), []).append(record)
    changed = {task for task, ones in tasks.items() if any(one.condition is not _PLAIN for one in ones)}
    return "\n".join(_section(*task, tasks[task]) for task in sorted(changed))


def _section(experiment: str, corpus: str, part: str, records: Sequence[Record]) -> str:
    heard = {condition: systems(one for one in records if one.condition is condition) for condition in Condition}
    shown = {_key(system): system for condition, found in heard.items() if condition is not _PLAIN for system in found}
    unequal = steps_differ(shown.values())
    names = {key: _name(one) + (f", {one.steps} steps" if unequal else "") for key, one in shown.items()}
    columns = sorted(names, key=lambda key: order(shown[key]))
    header = ["speech"]
    for key in columns:
        header += [f"{names[key]}: WER %, 95 %", "more"]
    compared = [key for key in columns if shown[key].last.method is not Method.float]
    header += [f"{names[key]} minus float, points, 95 %" for key in compared]
    rows = []
    for condition, found in heard.items():
        by_key, plain = ({_key(system): system for system in among} for among in (found, heard[_PLAIN]))
        if by_key.keys() & shown.keys():
            cells = [cell for key in columns for cell in _errors(by_key.get(key), plain.get(key), condition)]
            rows.append([condition.label, *cells, *(_to_float(by_key.get(key), found) for key in compared)])
    title = escaped(f"Robustness: {experiment}, {part} of {corpus}")
    return f"## {title}\n\n{_INTRODUCTION}\n{markdown(header, rows, left=1)}"


def _key(system: System) -> tuple[str, ...]:
    """The identity of a system across conditions."""
    last = system.last
    return last.model, last.quant, last.method, last.backend


def _name(system: System) -> str:
    last = system.last
    backend = "" if last.backend in PLAIN_BACKENDS else last.backend
    method = "" if last.method in (Method.float, Method.qat) else last.method.label
    return ", ".join(filter(None, [last.quant, method, backend]))


def _errors(system: System | None, plain: System | None, condition: Condition) -> tuple[str, str]:
    """The error rate, and its increase over that of unchanged speech."""
    if system is None:
        return "", ""
    alone = plain is None or condition in (_PLAIN, Condition.silence_alone)
    return percent_interval(system.wer), "" if alone or plain is None else points(system.wer[0] - plain.wer[0])


def _to_float(system: System | None, among: Sequence[System]) -> str:
    of = baseline(system, among) if system else None
    difference = system.difference(of) if system and of else None
    return ", ".join(filter(None, [points_interval(difference), verdict(difference)]))

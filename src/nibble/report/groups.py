"""Error rates by utterance length in words, and by speaker: quantized recognisers fail on long utterances first."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from nibble.percent import points_interval
from nibble.report.tables import System, baseline, is_deployed, markdown, steps_differ
from nibble.runs.method import Method
from nibble.runs.records import Record

_SHOWN = ("float", "int8", "int4", "int2")  # the precisions of the tables
_COMPARED = "int4"
_WORDS = (1, 3, 5, 7, 10, 20)  # the least number of words in the utterances of each group
_MOST_SPEAKERS = 12  # of a table
_LIBRISPEECH_ID = re.compile(r"(.+)-[^-]+-[^-]+")  # speaker, chapter, number

Utterance = tuple[str, int, int]  # id, errors, words


def groups(rows: Sequence[System]) -> str:
    """Tables in Markdown for each model trained in float and at four bits with several seeds; empty if there is none.

    A group is a small part of the utterances, so one seed says little about it.
    """
    trained = [one for one in rows if not is_deployed(one.last) and one.last.method in (Method.float, Method.qat)]
    shown = [one for one in trained if one.last.quant in _SHOWN]
    tables = []
    for four_bits in (one for one in shown if one.last.quant == _COMPARED):
        of = baseline(four_bits, shown)
        if of is None or len(set(of.seeds) & set(four_bits.seeds)) < 2 or four_bits.difference(of) is None:
            continue
        alike = [one for one in shown if one is of or baseline(one, shown) is of]
        said = f" of {four_bits.last.model}" if len({one.last.model for one in rows}) > 1 else ""
        for name, group_of in (("words said", _words), ("speaker", _speaker)):
            found = _table(name, group_of, alike, of, four_bits)
            tables += [f"WER %{said} by {name}:\n\n{found}"] if found else []
    return "\n".join(tables)


def _table(
    name: str, group_of: Callable[[Utterance], str], alike: Sequence[System], of: System, four_bits: System
) -> str:
    """A row for each group; empty if there is only one group, or too many to read."""
    members: dict[str, set[str]] = {}
    for utterance in of.last.utterance_errors:
        members.setdefault(group_of(utterance), set()).add(utterance[0])
    if not 1 < len(members) <= _MOST_SPEAKERS or "" in members:
        return ""
    lines = []
    for group in sorted(members, key=_order):
        inside = [_within(system, members[group]) for system in alike]
        words = sum(words for _, _, words in inside[0].last.utterance_errors)
        difference = _within(four_bits, members[group]).difference(_within(of, members[group]))
        rates = [f"{100 * system.wer[0]:.2f}" for system in inside]
        lines.append([group, f"{len(members[group]):,}", f"{words:,}", *rates, points_interval(difference)])
    unequal = steps_differ(alike)
    quants = [f"{one.last.quant}, {one.steps} steps" if unequal else one.last.quant for one in alike]
    return markdown([name, "utterances", "words", *quants, f"{_COMPARED} minus float, points, 95 %"], lines, left=1)


def _within(system: System, ids: set[str]) -> System:
    """The results of a system on some of the utterances."""

    def of(record: Record) -> Record:
        inside = [one for one in record.utterance_errors if one[0] in ids]
        return replace(record, utterance_errors=inside, text_hashes=[])

    return System(tuple(of(record) for record in system.records))


def _words(utterance: Utterance) -> str:
    """The group of an utterance by its words, such as 5–6."""
    at_least = max((bound for bound in _WORDS if bound <= utterance[2]), default=0)
    after = next((bound for bound in _WORDS if bound > at_least), None)
    if after is None:
        return f"{at_least} or more"
    return f"{at_least}–{after - 1}" if after - 1 > at_least else str(at_least)


def _speaker(utterance: Utterance) -> str:
    """The speaker, with whom ids in LibriSpeech's layout begin; empty for other ids."""
    found = _LIBRISPEECH_ID.fullmatch(utterance[0])
    return found[1] if found else ""


def _order(group: str) -> tuple[int, str]:
    number = re.match(r"\d+", group)
    return int(number[0]) if number else 0, group

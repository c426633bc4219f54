"""Say what a corpus contains and what is wrong with it.

python -m nibble.data.check my_corpus
python -m nibble.data.check my_corpus/train.jsonl columns=[audio:wav,text:said] page=look.html

A source is a folder of parts as data.corpus_dir= takes it, or one part: a folder or file in any format of
docs/your-speech.md. Nothing is changed. What was found is kept in data/cache, so that training need not look again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.data.audio import Waveforms
from nibble.data.corpora.locate import ROOT
from nibble.data.cuts import Cuts
from nibble.data.options import DataConfig, TextCase, named_columns
from nibble.data.sources.kept import Findings
from nibble.data.sources.part import check_part
from nibble.data.sources.recognise import parts_in, source_of
from nibble.data.sources.source import Source
from nibble.data.survey import Survey, advice, summary, survey, twice
from nibble.errors import UserError
from nibble.terminal import Console, Table
from nibble.writing import write_text

_SHOWN = 5


@dataclass
class CheckOptions:
    """The options of `python -m nibble.data.check`."""

    source: list[str] = field(default_factory=list, metadata=BARE)  # a corpus or one part of it
    columns: list[str] = field(default_factory=list)  # as data.columns=, such as [audio:wav,text:said]
    channel: str = "mix"  # of recordings with several channels: mix, 0, 1 ...
    page: str | None = None  # HTML file to write, with histograms of lengths and speaking rates

    def __post_init__(self) -> None:
        if len(self.source) != 1:
            raise UserError("give one corpus or part: python -m nibble.data.check my_corpus")


def main(words: list[str] | None = None) -> int:
    """Returns 0, or 1 if nothing can be read."""
    return run_words(_check, CheckOptions, __doc__, words)


def _check(options: CheckOptions) -> None:
    console = Console()
    parts: dict[str, Cuts] = {}
    surveys: dict[str, Survey] = {}
    bad: dict[str, int] = {}
    for name, source in _sources(Path(options.source[0]), named_columns(options.columns)):
        try:
            found, converted = check_part(source, ROOT / "cache", options.channel)
        except UserError as error:
            console.print(f"{name}: {error}", style="bold red")
            continue
        cuts = found.cuts(source.root, converted, TextCase.keep)
        bad[name] = sum(tally.count for tally in found.found.problems.values())
        console.print(f"{name} ({type(source).__name__})", style="bold green")
        if len(cuts):
            parts[name], surveys[name] = cuts, survey(cuts, name)
            _print(summary(name, cuts).partition(": ")[2], surveys[name], console)
        _print_findings(found.found, console)
    if not parts:
        raise UserError(f"no utterance of {options.source[0]} can be used")
    _print_twice(twice(parts, Waveforms(ROOT / "cache")), console)
    lines = list(advice(surveys, DataConfig.max_duration_s, bad))
    if lines:
        console.print("Options to set:", style="bold")
    for line in lines:
        console.print(f"  {line}")
    if options.page:
        write_text(Path(options.page), _page(surveys))
        console.print(f"histograms: {options.page}")


def _sources(path: Path, columns: dict[str, str]) -> Iterable[tuple[str, Source]]:
    """The part at a path or, of a folder of parts, each of them."""
    inner = path / "LibriSpeech"
    folder = inner if inner.is_dir() else path
    if not path.exists():
        raise UserError(f"there is no folder or file {path}")
    whole = path.is_file() or type(source_of(path)).__name__ != "LibriSpeech" or any(path.glob("*/*/*.trans.txt"))
    if whole or not parts_in(folder):
        return [(path.name, source_of(path, columns))]
    return [(name, source_of(part, columns)) for name, part in parts_in(folder).items()]


def _print(first: str, found: Survey, console: Console) -> None:
    console.print(f"  {first}")
    low, middle, high = np.percentile(found.durations_s, [5, 50, 95])
    console.print(f"  length: 5 % below {low:.1f} s, half below {middle:.1f} s, 5 % above {high:.1f} s")
    rate = float(np.median(found.characters_per_s))
    console.print(f"  text: {found.words:,} words, {len(found.characters):,} characters, {rate:.1f} of them a second")
    for what, counts in (("speakers", found.speakers), ("languages", found.languages)):
        most = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(_SHOWN))
        console.print(f"  {len(counts):,} {what}: {most}{' …' if len(counts) > _SHOWN else ''}")
    if found.rare:
        console.print(f"  {len(found.rare):,} characters in fewer than 5 utterances: {' '.join(found.rare[:40])}")


def _print_findings(found: Findings, console: Console) -> None:
    for title, kinds in (("can't be used", found.problems), ("to know", found.notes)):
        rows = [
            [
                kind,
                f"{tally.count:,}",
                "; ".join(f"{id_}: {detail}" if detail else id_ for id_, detail in tally.examples[:2]),
            ]
            for kind, tally in kinds.items()
        ]
        if rows:
            console.print(Table((title, "utterances", "such as"), rows, left=3))


def _print_twice(groups: list[list[tuple[str, str]]], console: Console) -> None:
    across = [group for group in groups if len({part for part, _ in group}) > 1]
    for what, some in (("in several parts", across), ("twice in a part", [one for one in groups if one not in across])):
        if some:
            shown = "; ".join(" = ".join(f"{part}/{id_}" for part, id_ in group[:3]) for group in some[:_SHOWN])
            console.print(f"the same audio is {what}, {len(some):,} times: {shown}", style="bold yellow")


def _page(surveys: dict[str, Survey]) -> str:
    """An HTML page with two histograms, which needs no network."""
    import altair

    charts = []
    for what, values in (
        ("length in seconds", {name: found.durations_s.tolist() for name, found in surveys.items()}),
        ("characters a second", {name: found.characters_per_s for name, found in surveys.items()}),
    ):
        rows = []
        for name, numbers in values.items():
            counts, edges = np.histogram(numbers, bins=40)
            rows += [
                {"part": name, "from": float(low), "to": float(high), "utterances": int(count)}
                for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
            ]
        x = altair.X("from:Q", title=what).bin("binned")
        chart = altair.Chart(altair.Data(values=rows)).mark_bar(opacity=0.7)
        charts.append(chart.encode(x=x, x2="to:Q", y="utterances:Q", row="part:N").properties(width=600, height=120))
    return str(altair.vconcat(*charts).to_html(inline=True))


def run() -> None:
    """Run the command line."""
    stopping.run(main)

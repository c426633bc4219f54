"""Prints the results of `evaluate.py`."""

from collections.abc import Sequence
from statistics import mean, stdev

from rich.text import Text

from nibble.data.options import Condition
from nibble.errors import printable
from nibble.evaluation.alignment import aligned
from nibble.evaluation.result import Result
from nibble.evaluation.units import Units
from nibble.evaluation.wer import paired_interval
from nibble.percent import percent, points_interval
from nibble.runs.records import Group, Record
from nibble.terminal import Console, Table

_GROUPS = 20  # shown of each kind


def print_results(results: Sequence[Result], console: Console, worst: int = 5) -> None:
    """Each result on unchanged speech in full; for several, one table as well; another one for changed speech."""
    plain = [result for result in results if result.record.condition is Condition.unchanged]
    for result in plain:
        _print_result(result, console, worst)
    if len(plain) > 1:
        console.print(comparison(plain))
    if len(plain) < len(results):
        console.print(condition_table([result.record for result in results]))


def condition_table(records: Sequence[Record]) -> Table:
    """A row for each condition of the speech, a column for each model."""
    models: dict[tuple[str, str, str, int], dict[Condition, Record]] = {}
    for record in records:
        key = (record.model, record.quant, record.method.value, record.seed)
        models.setdefault(key, {})[record.condition] = record
    names = [f"{quant} ({method}) seed {seed}" for _, quant, method, seed in models]
    conditions = [condition for condition in Condition if any(condition in found for found in models.values())]
    rows = [
        [one.label, *(percent(found[one].wer) if one in found else "" for found in models.values())]
        for one in conditions
    ]
    note = "Of silence alone: words recognised in it, per word of the speech that it stands for."
    return Table(("speech", *names), rows, title=f"{records[0].corpus} {records[0].part}: WER", note=note)


def comparison(results: Sequence[Result]) -> Table:
    """One row a model; with the steps of their training where those differ."""
    first = results[0].record
    header: tuple[str, ...] = (
        *("model", "quant", "WER", "95 %", "difference to the first", "bytes", "ratio", "MB in use", "RTF"),
    )
    rows = [_row(result.record, first) for result in results]
    if len({result.record.steps for result in results}) > 1:
        header = (*header, "steps")
        steps = (result.record.steps for result in results)
        rows = [[*row, "?" if one is None else f"{one:,}"] for row, one in zip(rows, steps, strict=True)]
    return Table(
        header,
        rows,
        left=2,
        title=f"{first.corpus} {first.part}",
    )


def _row(record: Record, first: Record) -> list[str]:
    return [
        f"{record.model} seed {record.seed}",
        f"{record.quant} ({record.method})",
        percent(record.wer),
        f"{percent(record.wer_ci95[0])} … {percent(record.wer_ci95[1])}",
        "" if record is first else difference(record, first),
        f"{record.bundle_bytes:,}",
        f"{record.ratio:.2f}×",
        "" if record.memory is None else f"{record.memory.ran_bytes / 1e6:.0f}",
        f"{record.rtf:.3f}",
    ]


def difference(record: Record, first: Record) -> str:
    """WER of `record` minus WER of `first` in percentage points, with its 95 % interval."""
    try:
        return points_interval(paired_interval([record.utterance_errors], [first.utterance_errors]))
    except ValueError:
        return "other utterances"


def _print_result(result: Result, console: Console, worst: int) -> None:
    record = result.record
    console.print(f"{record.model} {record.quant} ({record.method}), {record.corpus} {record.part}", style="bold green")
    low, high = record.wer_ci95
    rate, characters = Units(record.units).rate, f"; CER {percent(record.cer)}" if record.cer is not None else ""
    _print_figure(
        f"{rate} {percent(record.wer)}",
        f" (95 %: {percent(low)} … {percent(high)}): "
        f"{record.substitutions} substitutions, {record.deletions} deletions, {record.insertions} insertions "
        f"in {record.reference_words:,} {record.units} of {len(record.utterance_errors):,} utterances{characters}",
        console,
    )
    if record.draws:
        console.print(draws(record))
    if Units(record.units) is Units.characters:
        console.print("errors are counted in characters, since the script puts no spaces between words", style="dim")
    if record.windowed:
        console.print(
            f"{record.windowed:,} utterances, longer than those of the training, were recognised in windows",
            style="dim",
        )
    for name, groups in record.groups.items():
        if len(groups) > 1 or name != "length":
            console.print(group_table(name, groups, record))
    _print_worst(result, console, worst)
    _print_size(result, console)
    _print_figure(
        f"RTF {record.rtf:.4f}",
        f" (encoder and search; CPU threads: {record.threads}; {record.hardware})",
        console,
        _budget(record.rtf, result.hardware.max_rtf),
    )
    _print_memory(record, console)


def draws(record: Record) -> str:
    """The error rates of an analog model over its draws: mean, standard deviation, worst."""
    rates = record.draws
    spread = f", spread {percent(stdev(rates))}" if len(rates) > 1 else ""
    return f"{len(rates)} draws of the noise: mean {percent(mean(rates))}{spread}, worst {percent(max(rates))}"


def group_table(name: str, groups: Sequence[Group], record: Record) -> Table:
    """One row a group; of many, those with most errors."""
    shown = sorted(groups, key=lambda group: -group.errors)[:_GROUPS] if len(groups) > _GROUPS else groups
    rows = [
        [
            group.name,
            f"{group.utterances:,}",
            f"{group.units:,}",
            percent(group.errors / group.units) if group.units else "",
            f"{percent(group.ci95[0])} … {percent(group.ci95[1])}",
            *(f"{count:,}" for count in (group.substitutions, group.deletions, group.insertions)),
        ]
        for group in shown
    ]
    header = (f"by {name}", "utterances", record.units, Units(record.units).rate, "95 %", "sub", "del", "ins")
    return Table(header, rows, note=f"{len(groups) - len(shown)} more groups" if len(shown) < len(groups) else "")


def _print_worst(result: Result, console: Console, worst: int) -> None:
    for (id_, reference, hypothesis), errors, words in result.worst(worst):
        console.print(f"{id_}: {errors} errors in {words} {result.record.units}", style="dim")
        console.print(aligned(reference, hypothesis, console.width))


def _print_size(result: Result, console: Console) -> None:
    record, groups = result.record, result.size.sixteen_bit
    where = "all files" if groups is None else "the bundle"
    _print_figure(
        f"{record.bundle_bytes:,} bytes",
        f" in {where}, {record.ratio:.2f}× smaller than "
        f"{record.parameters:,} parameters in float32 ({record.float32_bytes:,} bytes)",
        console,
        _budget(record.bundle_bytes, result.hardware.max_bundle_bytes),
    )
    if groups is None:
        return
    if not groups:
        console.print("all of it in 32 bits")
        return
    values, tensors = sum(group.values for group in groups), sum(group.tensors for group in groups)
    if result.size.quantized_share is not None:
        console.print(f"integers: {percent(result.size.quantized_share)} of the parameters")
    console.print(f"in 16 bits: {values:,} values in {tensors} tensors")
    for group in groups:
        console.print(f"  {group.values:>9,}  {group.name} ({group.tensors})")


def _print_memory(record: Record, console: Console) -> None:
    if (memory := record.memory) is not None:
        loaded, ran, most = (f"{size / 1e6:.0f}" for size in (memory.loaded_bytes, memory.ran_bytes, memory.peak_bytes))
        _print_figure(
            f"{ran} MB",
            f" of memory in use, {loaded} after loading in {memory.load_s:.2f} s, {most} at the most "
            "(one thread, 10 s of audio, Python and its packages not counted)",
            console,
        )
    assert record.peak_bytes is not None  # it was measured just now
    console.print(f"this whole process: {record.peak_bytes / 1e6:.0f} MB at the most; {record.backend}")


def _print_figure(figure: str, rest: str, console: Console, budget: Text | None = None) -> None:
    console.print(Text.assemble((figure, "bold"), printable(rest), budget or ""))


def _budget(measured: float, allowed: float | None) -> Text | None:
    if allowed is None:
        return None
    kept = ("kept", "green") if measured <= allowed else ("exceeded", "bold red")
    return Text.assemble(f"; budget {allowed:,}: ", kept)

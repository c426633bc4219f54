"""Error rates of groups of utterances: by their length, and by whatever else a corpus says of them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from lhotse import MonoCut

from nibble.errors import UserError, nearest
from nibble.evaluation.wer import Edits, interval
from nibble.runs.records import Group

LENGTH = "length"
BOUNDS_S = (2, 5, 10, 20)  # between groups of utterances by length


def grouped(edits: Sequence[Edits], cuts: Iterable[MonoCut], by: Sequence[str]) -> dict[str, list[Group]]:
    """The error rates of groups of utterances.

    Args:
        edits: of each utterance.
        cuts: the utterances, and perhaps others.
        by: "length", or fields of the supervisions, such as speaker or language.

    Returns:
        for each of `by` its groups, lengths from short to long, others by name

    Raises:
        UserError: no utterance has such a field; the text gives those that there are.
    """
    wanted = {one.id for one in edits}
    keys: dict[str, dict[str, str]] = {name: {} for name in by}
    fields: set[str] = {LENGTH}
    for cut in cuts:
        if cut.id not in wanted:
            continue
        labels = labels_of(cut)
        fields |= labels.keys()
        for name in by:
            keys[name][cut.id] = _length(cut.duration) if name == LENGTH else labels.get(name, "")
    for name in by:
        if name not in fields:
            raise UserError(f"by={name}: the corpus doesn't say that; it has {nearest(name, fields)}")
    order: Callable[[str], object] = lambda key: (float(key.split("–")[0].strip("≥ s")), key)  # noqa: E731
    return {name: _groups(edits, keys[name], order if name == LENGTH else str) for name in by}


def labels_of(cut: MonoCut) -> dict[str, str]:
    """What a cut says of its speech, by name."""
    sentence = cut.supervisions[0]
    known = {name: getattr(sentence, name) for name in ("speaker", "language", "gender")}
    return {name: str(value) for name, value in {**(sentence.custom or {}), **known}.items() if value}


def _length(duration_s: float) -> str:
    """The group of an utterance by its length."""
    for least, most in zip((0, *BOUNDS_S), BOUNDS_S, strict=False):
        if duration_s < most:
            return f"{least}–{most} s"
    return f"≥ {BOUNDS_S[-1]} s"


def _groups(edits: Sequence[Edits], keys: dict[str, str], order: Callable[[str], object]) -> list[Group]:
    members: dict[str, list[Edits]] = defaultdict(list)
    for one in edits:
        members[keys[one.id]].append(one)
    found = []
    for name in sorted(members, key=order):  # type: ignore[arg-type]
        inside = members[name]
        low, high = interval([[(one.id, one.errors, one.units) for one in inside]])[1:]
        found.append(
            Group(
                name=name or "(not said)",
                utterances=len(inside),
                units=sum(one.units for one in inside),
                substitutions=sum(one.substitutions for one in inside),
                deletions=sum(one.deletions for one in inside),
                insertions=sum(one.insertions for one in inside),
                ci95=(low, high),
            )
        )
    return found

"""Computes error rates in words and characters, of all utterances and of groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lhotse import MonoCut

from nibble.data.options import Condition
from nibble.evaluation.groups import grouped
from nibble.evaluation.options import EvaluateConfig, Ignored
from nibble.evaluation.result import Transcript
from nibble.evaluation.units import Units, scored, units_of
from nibble.evaluation.wer import Score, inserted, score
from nibble.runs.records import Group


@dataclass(frozen=True)
class Scores:
    """The error rates that are recorded."""

    main: Score
    cer: float | None  # of texts whose errors are counted in words
    groups: dict[str, list[Group]]


def score_transcripts(transcripts: Sequence[Transcript], ignored: Iterable[str] = ()) -> Score:
    """Errors in words or, of scripts without spaces between words, in characters."""
    ids = [one.id for one in transcripts]
    references, hypotheses = _texts(transcripts, ignored)
    return score(ids, references, hypotheses, units_of(references))


def all_scores(
    transcripts: Sequence[Transcript], cuts: Iterable[MonoCut], options: EvaluateConfig, condition: Condition
) -> Scores:
    """Everything that a record says of the errors.

    With silence in place of speech, all recognised words are insertions; the rate is per word of the speech.

    Raises:
        UserError: `by=` names what the corpus doesn't say.
    """
    counted = inserted if condition is Condition.silence_alone else score
    ids = [one.id for one in transcripts]
    references, hypotheses = _texts(transcripts, options.ignored)
    main, cer = counted(ids, references, hypotheses, units_of(references)), None
    if main.units is Units.words:
        errors = counted(ids, references, hypotheses, Units.characters)
        cer = errors.wer if errors.reference_words else None
    return Scores(main, cer, grouped(main.edits, cuts, options.groups))


def shown(transcript: Transcript, ignored: Iterable[str], units: Units) -> Transcript:
    """A transcript as it was scored, with spaces between the units that errors are counted in."""
    known = [Ignored(one) for one in ignored]
    reference, hypothesis = (
        " ".join(units.units_in(scored(text, known))) for text in (transcript.reference, transcript.hypothesis)
    )
    return Transcript(transcript.id, reference, hypothesis)


def _texts(transcripts: Sequence[Transcript], ignored: Iterable[str]) -> tuple[list[str], list[str]]:
    known = [Ignored(one) for one in ignored]
    references = [scored(one.reference, known) for one in transcripts]
    return references, [scored(one.hypothesis, known) for one in transcripts]

"""The fields of a Lhotse cut in a shard: which are read, which are ignored, and which are refused.

A manifest of Lhotse can name a shell command, an address on the network, or any file, as the place of audio, features
and arrays; to load it is to run it. So no object of Lhotse is ever made from a file: of a cut only id, text and length
are taken, and whatever would change or replace its audio is an error.
"""

from dataclasses import dataclass
from typing import Any

from nibble.errors import UserError
from nibble.plain import parse

IN_SHARD = "shar"  # how Lhotse marks what lies in the tar file beside the cuts
_CUT = {"id", "type", "start", "duration", "channel", "supervisions", "recording", "features", "custom"}
_RECORDING = {"id", "sources", "sampling_rate", "num_samples", "duration", "channel_ids"}
_SOURCE = {"type", "channels", "source"}
_FEATURES = {
    *("type", "num_frames", "num_features", "frame_shift", "sampling_rate", "start", "duration"),
    *("storage_type", "storage_path", "storage_key", "recording_id", "channels"),
}
_SUPERVISION = {
    *("id", "recording_id", "start", "duration", "channel", "text", "language", "speaker", "gender", "custom"),
    "alignment",
}
_LABELS = ("speaker", "language", "gender")
_MANIFEST = {"sources", "storage_path", "storage_type", "array", "shape", "width", "num_features"}
_MAX_ID = 250  # it is the name of a file
_SHOWN = 60


@dataclass(frozen=True)
class ShardCut:
    """One utterance as a shard describes it; its audio is the file of that name in the tar file."""

    id: str
    text: str
    duration_s: float
    rate_hz: int
    labels: dict[str, str]


def parse_cut(line: str, where: str) -> ShardCut:
    """The cut that a line of a `cuts.*.jsonl.gz` describes.

    Args:
        line: JSON.
        where: file and line, for messages.

    Raises:
        UserError: it is not a cut with one supervision of a recording in the tar file; the text names cut and field.
    """
    try:
        values = parse(line)
    except UserError as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    cut = _of_type(values, dict, where, "a cut")
    name = _of_type(cut.get("id"), str, where, "id")
    where = f"{where}, cut {_short(name)}"
    if not 0 < len(name) <= _MAX_ID:
        raise UserError(f"{where} has an id of {len(name)} characters; give 1 to {_MAX_ID}")
    _only(cut, _CUT, where)
    if cut.get("type") != "MonoCut":
        raise UserError(f"{where}: type is {_short(cut.get('type'))}; give a MonoCut")
    _check_custom(cut.get("custom"), f"{where}: custom")
    if "features" in cut:
        features = _of_type(cut["features"], dict, where, "features")
        _only(features, _FEATURES, f"{where}: features")
        _in_shard(features, "storage_type", "storage_path", f"{where}: features")
    rate_hz = _check_recording(_of_type(cut.get("recording"), dict, where, "recording"), f"{where}: recording")
    sentences = _of_type(cut.get("supervisions"), list, where, "supervisions")
    if cut.get("start") != 0 or len(sentences) != 1:
        raise UserError(
            f"{where} has {len(sentences)} sentences, from {_short(cut.get('start'))} s on; give utterances of one "
            "sentence, from 0 s on"
        )
    sentence = _of_type(sentences[0], dict, where, "supervisions[0]")
    _only(sentence, _SUPERVISION, f"{where}: supervisions[0]")
    _check_custom(sentence.get("custom"), f"{where}: supervisions[0].custom")
    text = _of_type(sentence.get("text"), str, where, "supervisions[0].text")
    if not text.strip():
        raise UserError(f"{where} has no text; give utterances of one sentence")
    duration_s = float(_of_type(cut.get("duration"), (int, float), where, "duration"))
    return ShardCut(name, text, duration_s, rate_hz, labels(sentence))


def labels(sentence: dict[str, Any]) -> dict[str, str]:
    """What a supervision says of its speaker and speech: the fields of Lhotse and the custom ones that are values."""
    custom = sentence.get("custom")
    named = {**(custom if isinstance(custom, dict) else {}), **{name: sentence.get(name) for name in _LABELS}}
    return {name: str(value) for name, value in named.items() if isinstance(value, str | int | float)}


def _check_recording(recording: dict[str, Any], where: str) -> int:
    """The rate of a recording, which must lie in the tar file."""
    _only(recording, _RECORDING, where)
    for number, source in enumerate(_of_type(recording.get("sources"), list, where, "sources")):
        inner = f"{where}.sources[{number}]"
        _only(_of_type(source, dict, inner, "a source"), _SOURCE, inner)
        _in_shard(source, "type", "source", inner)
    rate_hz: int = _of_type(recording.get("sampling_rate"), int, where, "sampling_rate")
    return rate_hz


def _in_shard(place: dict[str, Any], kind: str, path: str, where: str) -> None:
    if place.get(kind) != IN_SHARD or place.get(path) != "":
        raise UserError(
            f"{where} has {kind}={_short(place.get(kind))} and {path}={_short(place.get(path))}; only what lies in the "
            "tar files beside the cuts is read, and nothing is executed or fetched: write the shards with "
            "python -m nibble.data.shar, or Lhotse's to_shar with the field recording"
        )


def _check_custom(custom: object, where: str) -> None:
    """Ignore custom fields; refuse those that Lhotse would load data for."""
    if custom is None:
        return
    for name, value in _of_type(custom, dict, where, "it").items():
        if isinstance(value, dict) and not _MANIFEST.isdisjoint(value):
            raise UserError(f"{where}.{_short(name)} is a manifest of data, which is not read; drop it from the cuts")


def _only(values: dict[str, Any], allowed: set[str], where: str) -> None:
    for name in values:
        if name not in allowed:
            raise UserError(
                f"{where} has the field {_short(name)}, which is not read; allowed are {', '.join(sorted(allowed))}"
            )


def _of_type(value: Any, kind: type | tuple[type, ...], where: str, name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{where}: {name} is {_short(value)}, which it can't be")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""A training run that starts from an imported model takes its architecture, features and labels from there."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from nibble.config import Config
from nibble.data.options import Tokens
from nibble.errors import UserError
from nibble.features.options import FeatureConfig
from nibble.imports.recognition import is_foreign, read_foreign
from nibble.model.options import ModelConfig
from nibble.runs.checkpoint import load_checkpoint

_OF_TRAINING = ("name", "dropout", "storage")  # options that say nothing of the network or of what it hears


class _Source(NamedTuple):
    named: str  # with its article
    model: ModelConfig
    features: FeatureConfig
    origin: str
    labels: bool = True  # whether it has any


def adopted(config: Config, words: Sequence[str]) -> tuple[Config, str | None]:
    """The configuration with what the checkpoint at `init_from` says, and one line about it for the user.

    Nothing changes, and there is no line, unless that checkpoint was imported.

    Args:
        config: as composed.
        words: of the command line, "option=value".

    Raises:
        UserError: a typed option contradicts the checkpoint, or that cannot be imported.
    """
    if config.init_from is None or config.resume is not None:
        return config, None
    source = _source(Path(config.init_from))
    if source is None:
        return config, None
    typed = {word.lstrip("+").partition("=")[0] for word in words}
    model = _agreed(config, "model", source.model, typed)
    features = _agreed(config, "features", source.features, typed)
    data = config.data
    if source.labels and not typed & {"data.tokens", "data.vocabulary_size"}:
        data = replace(data, tokens=Tokens.kept)
    labels = "its labels" if data.tokens is Tokens.kept else "labels of the training transcripts"
    part = "model" if source.labels else "encoder"
    line = f"{config.init_from} is {source.named}: its {part}, its features ({features.kind.value}), {labels}"
    return replace(config, model=model, features=features, data=data, origin=config.origin or source.origin), line


def _source(path: Path) -> _Source | None:
    """What an imported checkpoint says: another toolkit's, or a run that `python -m nibble.import` wrote."""
    if is_foreign(path):
        foreign = read_foreign(path)
        return _Source(foreign.named, foreign.model, foreign.features, foreign.origin, foreign.tokenizer is not None)
    if not path.exists():
        return None  # said when weights are loaded
    config = load_checkpoint(path).config
    if config.origin is None:
        return None
    return _Source("a run that was imported", config.model, config.features, config.origin)


def _agreed(config: Config, group: str, theirs: Any, typed: set[str]) -> Any:
    """The options of a group: the checkpoint's, but for those of training alone.

    Raises:
        UserError: the user typed one that is another there.
    """
    ours = getattr(config, group)
    kept = {}
    for field in fields(ours):
        option, mine, there = f"{group}.{field.name}", getattr(ours, field.name), getattr(theirs, field.name)
        if field.name in _OF_TRAINING:
            if option in typed or field.name == "storage":
                kept[field.name] = mine
            continue
        by_choice = group in typed
        if mine != there and (option in typed or by_choice):
            what = f"{option}={_shown(mine)}" if option in typed else f"{group}= with {option}={_shown(mine)}"
            raise UserError(
                f"{what} contradicts init_from={config.init_from}, which has {option}={_shown(there)}; leave {group}= "
                "and its options out, as the checkpoint says them"
            )
    return replace(theirs, **kept)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)

"""Composes typed options from the command line with Hydra, and finds every mistake before anything runs."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nibble.config import Config
from nibble.errors import UserError, nearest
from nibble.evaluation.options import EvaluateConfig
from nibble.export.options import ExportConfig
from nibble.post_training.options import QuantizeConfig
from nibble.sensitivity.options import SensitivityConfig

Schema = TypeVar("Schema")

SCHEMAS = {
    "train": Config,
    "evaluate": EvaluateConfig,
    "quantize": QuantizeConfig,
    "export": ExportConfig,
    "sensitivity": SensitivityConfig,
}


# Hydra's launchers and sweepers that come with packages of their own -> the extra in pyproject.toml that has them.
PLUGINS = {
    "hydra/launcher": {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "ray"},
    "hydra/sweeper": {"optuna": "sweep"},
}


def conf_dir() -> Path:
    """conf/ of the repository, for `python -m nibble.*`, which may run anywhere; it may be absent (`run` says so)."""
    return Path(__file__).resolve().parents[2] / "conf"


def register_schemas() -> None:
    """Put the typed configurations where Hydra finds them: `defaults: [train_schema, ...]`."""
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)


def training_config(words: Sequence[str]) -> Config:
    """What `python train.py` makes of these words, for notebooks and benches; `run_dir=DIR` must be one of them.

    Raises:
        UserError: as of that command.
    """
    register_schemas()
    check_command_line(conf_dir(), "train", words)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed(compose("train", overrides=list(words)))


def check_command_line(config_dir: Path, config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration once before Hydra does, so that a slip ends in one line.

    Of a sweep, each value of an option is composed with the first ones of the others.

    Returns:
        the configuration with Hydra's own part; of a sweep, without the options that it varies.

    Raises:
        UserError: an unknown option or group choice, with the nearest names; a value of the wrong type.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            check_words(overrides)
            parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))
            for words in each_value(parsed):
                reject_unknown(compose(config_name, overrides=words))
            fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
            composed = compose(config_name, overrides=fixed, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            base = compose(config_name, return_hydra_config=True)
            raise UserError(explain(error, base, config_dir)) from error
    GlobalHydra.instance().clear()
    return composed


def check_words(words: Sequence[str], multirun: bool = True) -> None:
    """Raise `UserError` for a word that is no NAME=VALUE, or whose value must be quoted.

    Args:
        words: of the command line.
        multirun: whether a comma may stand between the values of several runs.
    """
    parser = OverridesParser.create()
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        quoted = shlex.quote(f'{name}="{value}"')
        try:
            override = parser.parse_override(word)
        except HydraException as error:
            if equals:
                raise UserError(
                    f"{word} cannot be read: a value with , = ( ) [ ] {{ }} : or quotes in it is put in quotes, which "
                    f"the shell must leave there: {quoted}"
                ) from error
            following = words[number + 1] if number + 1 < len(words) else ""
            meant = f"{word}={following}" if following and "=" not in following else f"{word}=VALUE"
            raise UserError(f"{word!r} is no option with its value; give {meant}") from error
        if not override.is_sweep_override():
            continue
        if not multirun:
            raise UserError(
                f"{word} has a comma: for one value with a comma in it, give {quoted}; "
                f"for a list, {name}=[{value}]; for a run of each, add -m"
            )
        if Path(value).exists():
            raise UserError(f"{word} would be several runs, but {value} exists; for that one path, give {quoted}")


def each_value(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides without sweeps, such that each value of each sweep is in one; a sweep over an interval is left out."""
    choices = []
    for override in overrides:
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    first = [values[0] for values in choices]
    yield first
    for number, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:number], value, *first[number + 1 :]]


def explain(error: Exception, base: DictConfig, config_dir: Path) -> str:
    """Hydra's error in one line, with the names that were probably meant."""
    text = str(error.__cause__ or error)
    full = f"{error}\n{text}"
    names = option_names(base)
    if match := re.search(r"An item is already at '([\w.]+)'", full):
        return f"the option {match.group(1)!r} exists already: drop the + before it"
    if match := re.search(r"Could not (?:override|append to config).*?'([\w.@/]+)'", full):
        name = match.group(1)
        if name in names:
            inner = [other for other in names if other.startswith(f"{name}.")]
            return f"{name!r} is not a choice of files here; set its options: {nearest(name, inner)}"
        return f"no option {name!r}; nearest: {nearest(name, names)}"
    if match := re.search(r"Could not find '([\w/]+)/([\w.-]+)'", full):
        group, choice = match.groups()
        plugins = PLUGINS.get(group, {})
        if choice in plugins:
            return f"{group}={choice} needs a package: pip install -e .[{plugins[choice]}]"
        known = [*plugins, *(path.stem for path in (config_dir / group).glob("*.yaml"))]
        return f"no {group}={choice}; nearest: {nearest(choice, known)} (all: {', '.join(sorted(known))})"
    first = next(line for line in text.splitlines() if line.strip())
    key = re.search(r"full_key: (\S+)", text)
    return f"{key.group(1)}: {first}" if key else f"{error}".splitlines()[0] + f" ({first})"


def option_names(config: DictConfig, prefix: str = "") -> list[str]:
    """Every dotted option name of a composed configuration, Hydra's own left out."""
    names = []
    for key in config:
        name = f"{prefix}{key!s}"
        if name == "hydra":
            continue
        names.append(name)
        if OmegaConf.is_missing(config, str(key)) or OmegaConf.is_interpolation(config, str(key)):
            continue
        if isinstance(child := config[key], DictConfig):
            names += option_names(child, f"{name}.")
    return names


def typed(config: DictConfig) -> Config:
    """The composed configuration of a training run as dataclasses, every cross-check done.

    Raises:
        UserError: a value is missing or contradicts another; the text names the option.
    """
    return typed_as(Config, config)


def typed_as(schema: type[Schema], config: DictConfig) -> Schema:
    """As `typed`, for the configuration of any command."""
    reject_unknown(config)
    missing = OmegaConf.missing_keys(config)
    if missing:
        raise UserError(f"no value for {', '.join(sorted(missing))}")
    options = OmegaConf.to_object(config)
    if not isinstance(options, schema):
        raise UserError(f"not a {schema.__name__}: {type(options).__name__}")
    return options


def reject_unknown(config: DictConfig, prefix: str = "") -> None:
    """Refuse keys that no dataclass has: Hydra's `+option=value` can add one, and it would be ignored."""
    schema = OmegaConf.get_type(config)
    if not is_dataclass(schema):  # names of the user's own
        return
    known = [f"{prefix}{field.name}" for field in fields(schema)]
    for key in config:
        name = f"{prefix}{key!s}"
        if name not in known:
            raise UserError(f"no option {name!r}; nearest: {nearest(name, known)}")
        unresolved = OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, str(key))
        if not unresolved and isinstance(config[key], DictConfig):
            reject_unknown(config[key], f"{name}.")

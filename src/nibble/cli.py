"""What the commands that Hydra composes share: a check of the command line, and errors without a traceback."""

import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, suppress
from itertools import count
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nibble.config import (
    Config,
    EvaluateConfig,
    ExportConfig,
    QuantizeConfig,
    SensitivityConfig,
    reject_unknown,
    typed,
)
from nibble.errors import Interrupted, UserError, nearest
from nibble.help import help_text
from nibble.stopping import catch_signals, farewell

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
            raise UserError(f"{word} would be several runs, but {value} is there; for that one path, give {quoted}")


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


def run(config_dir: Path, config_name: str, main: Callable[[], Any]) -> None:
    """Run a Hydra `main`; a `UserError` is printed in one paragraph and ends the process with 1."""
    catch_signals()
    quieten()
    register_schemas()
    given = get_args(sys.argv[1:])  # as Hydra will read it
    overrides = list(given.overrides)
    try:
        if not (config_dir / f"{config_name}.yaml").is_file():
            raise UserError(
                f"{config_dir / config_name}.yaml is missing; clone the repository, and there: pip install -e ."
            )
        if config_name == "train":
            more = resume_arguments(overrides)
            sys.argv += more
            overrides += more
        if given.help:
            show_help(config_dir, config_name, overrides, str(sys.modules[main.__module__].__doc__))
        elif given.shell_completion:
            complete(main, overrides)
        elif given.hydra_help:
            main()
        else:
            check_words(
                overrides,
                multirun=given.multirun
                or any(word.startswith(("hydra/sweeper", "hparams_search")) for word in overrides),
            )
            composed = check_command_line(config_dir, config_name, overrides)
            if config_name != "train" or given.cfg or given.info:
                main()
            elif given.multirun or composed.hydra.mode == RunMode.MULTIRUN:
                run_sweep(main, composed, overrides)
            else:
                new_folder(composed.hydra.run.dir, "hydra.run.dir", overrides)
                main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except Interrupted as stop:
        sys.exit(farewell(stop))


def run_sweep(main: Callable[[], Any], composed: DictConfig, overrides: Sequence[str]) -> None:
    """Run all jobs of a Hydra `main`, show what became of them, and end the process."""
    from nibble import sweep  # imports torch: not before it is needed

    sweep.check(composed)
    folder = new_folder(composed.hydra.sweep.dir, "hydra.sweep.dir", overrides)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what went wrong, rather than print it
    sys.exit(sweep.run(main, folder))


def show_help(config_dir: Path, config_name: str, overrides: Sequence[str], about: str) -> None:
    """Print what can be typed, with the options as `overrides` set them."""
    composed = check_command_line(config_dir, config_name, overrides)
    print(help_text(about, config_dir, config_name, composed, SCHEMAS[config_name]))


def complete(main: Callable[[], Any], overrides: Sequence[str]) -> None:
    """Hydra's tab completion. A line that cannot be completed yet is no error to show in the middle of typing it."""
    if any(word.startswith("query=") for word in overrides):
        with redirect_stderr(io.StringIO()), suppress(SystemExit):
            main()
    else:
        main()


def new_folder(name: str, option: str, overrides: Sequence[str]) -> Path:
    """The folder that Hydra is to use for `option`: `name` unless given, with a number if another run has taken it.

    Two runs that start in the same second are told apart because only one of them can make a folder.

    Raises:
        UserError: no folder can be made there.
    """
    if any(word.startswith(f"{option}=") for word in overrides):
        return _writable(Path(name), option)
    for number in count(1):
        folder = Path(name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot create {folder}: {error.strerror}. Choose another with {option}=DIR") from error
        sys.argv.append(f"{option}={folder}")
        return folder
    raise AssertionError("count has no end")


def _writable(folder: Path, option: str) -> Path:
    """The folder, made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}. Choose another with {option}=DIR") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"nothing can be written to {folder}. Choose another with {option}=DIR")
    return folder


def resume_arguments(overrides: Sequence[str]) -> list[str]:
    """`resume=DIR` goes on in DIR, `resume=true` wherever it finds the run: Hydra is told to write nothing elsewhere.

    Raises:
        UserError: options beside `resume=DIR`; they would be ignored, since the run has all of them.
    """
    resume = next((word.removeprefix("resume=") for word in overrides if word.startswith("resume=")), None)
    if resume is None or resume.lower() in ("false", "null"):
        return []
    if resume.lower() == "true":
        return ["hydra.output_subdir=null", "hydra/job_logging=stdout"]
    others = [word for word in overrides if not word.startswith(("resume=", "hydra."))]
    if others:
        raise UserError(
            f"resume={resume} takes every option from that run; drop {' '.join(others)}, "
            "or start a new run from its weights with init_from="
        )
    from nibble.training.resume import run_folder  # imports torch: not before it is needed

    return [f"hydra.run.dir={run_folder(resume)}", "hydra.output_subdir=null"]


def report_errors(task: Callable[[Any], Any], config: Any) -> Any:
    """Call `task`, turning the errors a user can mend into an exit code before Hydra adds a traceback.

    In a sweep they are printed and raised, so that Hydra goes on with the next job.
    """
    quieten()  # launchers may run this in a process of its own
    try:
        return task(config)
    except UserError as error:
        text = message(error)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            print(f"error: {text}", file=sys.stderr)
            raise UserError(text) from error
        sys.exit(f"error: {text}")
    except Interrupted as stop:
        sys.exit(farewell(stop))


def message(error: UserError) -> str:
    """The text of an error; of one from a loader process, without the traceback that torch writes into it."""
    text = str(error)
    return text.rpartition("UserError: ")[2].strip() if "DataLoader worker" in text else text


def quieten() -> None:
    """Silence what libraries say of themselves; what concerns the user is said by this project."""
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch\.optim\.lr_scheduler")
    warnings.filterwarnings("ignore", message=r".*(torchaudio|rnnt_loss|deprecat|Grad strides).*")

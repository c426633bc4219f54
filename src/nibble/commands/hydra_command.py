"""How a command that Hydra composes runs: help, completion, its folder, a sweep, and errors without a traceback."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from itertools import count
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nibble.commands.help import help_text
from nibble.composition import SCHEMAS, check_command_line, check_words, register_schemas
from nibble.errors import Interrupted, UserError
from nibble.stopping import catch_signals, farewell
from nibble.writing import writable_folder


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
    from nibble.commands import sweep  # imports torch: not before it is needed

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
        return writable_folder(Path(name), option)
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
        from nibble.kernels.implementations import load_once  # imports torch: not before it is needed

        load_once()  # a wrong NIBBLE_KERNELS ends the command before it does anything
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

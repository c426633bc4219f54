"""Where curves go: CSV, W&B (offline unless asked otherwise), TensorBoard."""

import csv
import secrets
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from nibble.config import Config, plain
from nibble.errors import UserError
from nibble.runs.checkpoint_file import read_checkpoint
from nibble.runs.run_folder import RunFolder
from nibble.training import components
from nibble.training.options import LoggerConfig, WandbMode
from nibble.wandb_key import check_wandb_key
from nibble.writing import write_text


def check_loggers(options: LoggerConfig) -> None:
    """Check that the loggers of `logger=` can be built.

    Raises:
        UserError: W&B online without a key, TensorBoard without its package, or another that is no logger.
    """
    if options.tensorboard and find_spec("tensorboard") is None:
        raise UserError("logger.tensorboard=true needs a package: pip install -e .[tensorboard]")
    if options.wandb and options.wandb_mode is WandbMode.online:
        check_wandb_key("logger.wandb_mode=online")
    components.classes(Logger, "logger.others", options.others)  # type: ignore[type-abstract]


def build_loggers(config: Config, folder: Path) -> list[Logger]:
    """The loggers that `logger=` asks for, each writing below `folder`."""
    options: LoggerConfig = config.logger
    loggers: list[Logger] = []
    if options.csv:
        curves = earlier_curves(config, RunFolder(folder).metrics)
        csv_logger = CSVLogger(folder, name="", version=RunFolder(folder).metrics.parent.name)  # begins a new file
        for step, metrics in curves:
            csv_logger.log_metrics(metrics, step)
        loggers.append(csv_logger)
    if options.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if options.wandb:
        logger = WandbLogger(
            name=f"{config.name}_{config.quant.name}_seed{config.seed}",
            id=_wandb_id(folder),
            resume="allow",
            project=options.wandb_project,
            save_dir=folder,
            offline=options.wandb_mode is WandbMode.offline,
        )
        logger.experiment.config.update(plain(config), allow_val_change=True)
        loggers.append(logger)
    others = components.build(Logger, "logger.others", options.others)  # type: ignore[type-abstract]
    return [*loggers, *others.values()]


def _wandb_id(folder: Path) -> str:
    """W&B's id of the run in `folder`, created once, so that a resumed run is the same run there, even offline."""
    path = RunFolder(folder).wandb_id
    if not path.is_file():
        write_text(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8")


def earlier_curves(config: Config, path: Path) -> list[tuple[int, dict[str, Tensor | float]]]:
    """(step, metrics) of a run that goes on, up to the checkpoint it goes on from."""
    if config.resume is None or not path.is_file():
        return []
    steps = read_checkpoint(Path(config.resume))["global_step"]
    with path.open(newline="") as file:
        rows = [(int(row.pop("step")), row) for row in csv.DictReader(file)]
    return [(step, {name: float(value) for name, value in row.items() if value}) for step, row in rows if step < steps]


def finish_loggers(loggers: Iterable[Logger]) -> None:
    """Close W&B's run: the next job of a sweep, in the same process, would write into it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()

"""Where curves go: CSV, W&B (offline unless asked otherwise), TensorBoard."""

import os
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from nibble.config import Config, LoggerConfig, WandbMode, plain
from nibble.errors import UserError


def build_loggers(config: Config, folder: Path) -> list[Logger]:
    """The loggers that `logger=` asks for, each writing below `folder`.

    Raises:
        UserError: W&B online without a key, or TensorBoard without its package.
    """
    options: LoggerConfig = config.logger
    loggers: list[Logger] = []
    if options.csv:
        loggers.append(CSVLogger(folder, name="", version="csv"))
    if options.tensorboard:
        try:
            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
        except ModuleNotFoundError as error:
            raise UserError("logger.tensorboard=true needs a package: pip install -e .[tensorboard]") from error
    if options.wandb:
        online = options.wandb_mode is WandbMode.online
        if online and not (os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").exists()):
            raise UserError(
                "logger.wandb_mode=online needs a key: run `wandb login`, set WANDB_API_KEY, "
                "or leave logger.wandb_mode=offline and send the files later with `wandb sync`"
            )
        logger = WandbLogger(
            name=f"{config.name}_{config.quant.name}_seed{config.seed}",
            project=options.wandb_project,
            save_dir=folder,
            offline=not online,
        )
        logger.experiment.config.update(plain(config), allow_val_change=True)
        loggers.append(logger)
    return loggers


def finish_loggers(trainer: pl.Trainer) -> None:
    """Close W&B's run: the next job of a sweep, in the same process, would write into it."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()

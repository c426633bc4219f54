"""The Lightning callback that takes any LightningModule from float to integers as it trains."""

from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from nibble.distributed import whole
from nibble.errors import UserError
from nibble.quant.convert import prepare, quantized_modules, set_precision
from nibble.quant.freezing import check_freezing, drop_scale_gradients, freeze_norms, freeze_scales
from nibble.quant.norm_statistics import separate
from nibble.quant.rehearsal import rehearse, states_ahead, training_step, unchanged
from nibble.quant.schedule import drawn_at, phase_at, state_at
from nibble.quant.spec import Phase, Precision, QuantConfig, ScheduleConfig
from nibble.quant.statistics import weight_statistics
from nibble.quant.summary import summary


class QuantizationCallback(pl.Callback):
    """Prepares modules before the optimizer exists, and moves them through the schedule by optimizer steps.

        trainer = pl.Trainer(max_steps=1000, callbacks=[QuantizationCallback(QuantConfig(rules=[...]))])

    The precision of a step depends on the step and on the number of steps alone, so a resumed run goes on as if it
    had not stopped. Validation runs at the precision of the coming step.

    Args:
        quant: which modules, and how.
        schedule: when; the default quantizes from the first step on.
        target: dotted name of the part of the LightningModule that the rules are for; empty: all of it.
        log_every_steps: how often each layer's weight statistics go to the trainer's loggers; 0: never.
    """

    def __init__(
        self,
        quant: QuantConfig,
        schedule: ScheduleConfig | None = None,
        target: str = "",
        log_every_steps: int = 0,
    ) -> None:
        self.quant = quant
        self.schedule = schedule or ScheduleConfig()
        self.target = target
        self.log_every_steps = log_every_steps
        self.precision = Precision.float
        self.blend = 1.0
        self._norms_frozen = self._scales_frozen = False
        self._rehearsed = False
        self._model: nn.Module | None = None

    def setup(self, _trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Prepare the modules, unless they are prepared already."""
        self._model = pl_module.get_submodule(self.target)
        if not quantized_modules(self._model):
            prepare(self._model, self.quant)
            separate(self._model, self.schedule.together)
            if stage == "fit":
                rank_zero_info(summary(self._model))
        if stage == "fit":
            check_freezing(self.quant, self.schedule)
            self._apply(*state_at(self.schedule, 0.0))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *_: Any) -> None:
        """Set the precision of this step, and freeze what its phase freezes; before the first one, try all precisions.

        Raises:
            Exception: the training step fails at a precision that is still to come.
        """
        fraction = trainer.global_step / total_steps(trainer)
        if not self._rehearsed:
            self._rehearsed = True
            self._rehearse(trainer, pl_module, batch, fraction)
        self._apply(*drawn_at(self.schedule, fraction, trainer.global_step))
        self._freeze(phase_at(self.schedule, fraction))

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        """Keep the optimizer from learned scales that this phase freezes."""
        if phase_at(self.schedule, trainer.global_step / total_steps(trainer)).freeze_scales:
            drop_scale_gradients(self._prepared())

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """While training, validate at the precision of the coming step; after the last one, at the final precision."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._apply(*state_at(self.schedule, trainer.global_step / total_steps(trainer)))

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A run too short for its schedule still ends at the final precision."""
        self.on_validation_start(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Log the weight statistics of each layer."""
        if not self.log_every_steps or trainer.global_step % self.log_every_steps:
            return
        if trainer.fit_loop._should_accumulate():  # no step was taken
            return
        with whole(trainer.lightning_module):
            values = {
                f"quant/{name}/{what}": value
                for name, module in quantized_modules(self._prepared()).items()
                for what, value in weight_statistics(module).items()
            }
        for logger in trainer.loggers if values else ():
            logger.log_metrics(values, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The rules, the schedule and the phase, as plain data."""
        return {
            "quant": _plain(asdict(self.quant)),
            "schedule": _plain(asdict(self.schedule)),
            "precision": self.precision.value,
            "blend": self.blend,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the phase of a checkpoint.

        Raises:
            UserError: the checkpoint was trained with other rules or another schedule.
        """
        mine = self.state_dict()
        for part in ("quant", "schedule"):
            if state_dict[part] != mine[part]:
                raise UserError(
                    f"the checkpoint was trained with {part}={state_dict[part]}, this run has {part}={mine[part]}; "
                    "resume with the same, or start a new run from its weights"
                )
        self._apply(Precision(state_dict["precision"]), float(state_dict["blend"]))

    def _apply(self, precision: Precision, blend: float) -> None:
        if (precision, blend) != (self.precision, self.blend):
            self.precision, self.blend = precision, blend
            set_precision(self._prepared(), precision, blend)

    def _rehearse(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, fraction: float) -> None:
        """Try a step at all precisions to come but the next step's, which tries it itself."""
        model, now = self._prepared(), drawn_at(self.schedule, fraction, trainer.global_step)
        states = [state for state in states_ahead(self.schedule, fraction) if state != now]
        step = training_step(trainer, pl_module, batch)
        if not states or step is None or not quantized_modules(model):
            return
        before = self.precision, self.blend
        with unchanged(pl_module):
            passed_by = rehearse(model, states, step)
        set_precision(model, *before)
        if passed_by:
            rank_zero_warn(
                f"these layers are quantized, but the modules around them multiply by their float weights: "
                f"{', '.join(passed_by)}. Put a rule without specs for them first, which leaves them in float"
            )

    def _freeze(self, phase: Phase) -> None:
        # Lightning puts all modules in training mode before an epoch, so batch norms are set at each step.
        if phase.freeze_norms or self._norms_frozen:
            freeze_norms(self._prepared(), phase.freeze_norms)
        if phase.freeze_scales != self._scales_frozen:
            freeze_scales(self._prepared(), phase.freeze_scales)
        self._norms_frozen, self._scales_frozen = phase.freeze_norms, phase.freeze_scales

    def _prepared(self) -> nn.Module:
        assert self._model is not None, "Lightning calls setup first"
        return self._model


def total_steps(trainer: pl.Trainer) -> float:
    """Optimizer steps of the whole run.

    Raises:
        UserError: the trainer does not know.
    """
    steps = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UserError("a quantization schedule needs the number of steps: give the Trainer max_steps or max_epochs")
    return steps


def _plain(value: Any) -> Any:
    """Enums as their values, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.value if isinstance(value, Enum) else value

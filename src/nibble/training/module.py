"""The training and validation steps of a network, and its optimizer."""

from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torchmetrics import Metric

from nibble import distributed
from nibble.config import Config, plain
from nibble.data.batch import Batch
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.evaluation.units import units_of
from nibble.evaluation.wer import score
from nibble.model.decoding import greedy
from nibble.model.transducer import Transducer
from nibble.quant.convert import precision_of, quantized_modules
from nibble.quant.finite import checked_at_end
from nibble.quant.norm_decay import norm_decay
from nibble.quant.spec import Precision
from nibble.quant.step import quantized_step
from nibble.runs.method import Method
from nibble.training import components
from nibble.training.compiled import compile_blocks
from nibble.training.distillation import Taught
from nibble.training.learning_rate import learning_rate_factor
from nibble.training.losses import Found, WithCtc, encode, of_labels
from nibble.training.parameter_groups import drop_gradients, parameter_groups
from nibble.training.sizes import SmallerSizes
from nibble.training.skipping import Statistics
from nibble.training.teacher import Teacher

MAX_SKIPPED_STEPS = 10  # losses in a row that may be infinite or NaN


class _Validated(NamedTuple):
    """A batch of the dev part."""

    ids: list[str]
    references: list[str]
    hypotheses: list[str]
    loss: float


class TransducerModule(pl.LightningModule):
    """A `Transducer` in training: its `objective` is the transducer loss, with a teacher and CTC if asked for.

    Of a network without predictor, such as a foundation encoder with a head, the objective is CTC alone.

    Args:
        config: of the run.
        tokenizer: text to labels.
        corpus: its name, for the checkpoint.
        teacher: of a quantized network; None for none.
    """

    # A step of a later phase may need a teacher that an earlier phase has yet to leave.
    repeatable_step = False

    def __init__(self, config: Config, tokenizer: Tokenizer, corpus: str, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.config = config
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.teacher = teacher
        self.model = Transducer(config.model, config.features, tokenizer.size)
        self.ctc = nn.Linear(config.model.width, tokenizer.size) if config.loss.ctc_weight > 0 else None
        self.objective = untaught = of_labels(config.model, config.loss)
        if teacher is not None:
            self.objective = Taught(untaught, teacher, config.distill)
        if self.ctc is not None:
            self.objective = WithCtc(self.objective, self.ctc, config.loss.ctc_weight)
            untaught = WithCtc(untaught, self.ctc, config.loss.ctc_weight)
        self._untaught = untaught  # the same without a teacher, for `model.sizes`, which the network itself teaches
        self._smaller: SmallerSizes | None = None
        self.skipped_in_a_row = 0
        self.skipped_ids: list[str] = []
        self.step_was_skipped = False  # the last one
        # Of the runs that this one began from too: rows of a table are comparable if they have had as much training.
        self.steps_before = 0
        self.heard_s = 0.0
        self._skipping = False
        self._statistics: Statistics | None = None  # before the present step
        self._validation: list[_Validated] = []
        # Of texts; no part of a checkpoint.
        self.metrics = components.build(Metric, "metrics", config.metrics)  # type: ignore[type-abstract]

    def configure_model(self) -> None:
        """Under FSDP, keep a share of each parameter, of its gradient and of the optimizer's state in each process.

        All parameters are one unit: a step gathers them once, so that whatever it calls finds them whole.
        """
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not isinstance(self, FSDPModule):
            fully_shard(self, mesh=self.trainer.strategy.device_mesh["data_parallel"])
            for step in ("training_step", "validation_step", "rehearse"):
                register_fsdp_forward_method(self, step)

    def on_fit_start(self) -> None:
        """Find the smaller sizes, and compile the blocks if `hardware.compile` says so, of layers that are prepared.

        Raises:
            UserError: processes that were started one by one write to different folders.
        """
        if len(folders := set(distributed.gathered(str(Path(self.config.run_dir).resolve())))) > 1:
            raise UserError(
                f"the processes of this run have different folders, {', '.join(sorted(folders))}; "
                "give all of them the same hydra.run.dir=DIR"
            )
        if self.config.model.sizes:
            self._smaller = SmallerSizes(self.model, self.config, self.tokenizer.size, self._untaught)
        if self.config.hardware.compile:
            compile_blocks(self.model)

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """The mean loss per label; its mean over processes is that of all their batches together.

        If it isn't finite in one process, all skip the step: gradients are dropped and statistics are restored.

        Raises:
            UserError: ten steps in a row were skipped; the text names the utterances.
        """
        if self._statistics is None:
            self._statistics = Statistics(self)
        self.heard_s += distributed.count() * batch.duration_s
        with quantized_step(self.model):
            loss = self.loss(batch)
        finite = bool(torch.isfinite(loss))
        if distributed.highest(not finite, self.device):
            self._statistics.restore()  # at once: what is NaN there would spoil the other batches of this step
            self._skip([] if finite else batch.ids)
            return loss
        self.skipped_in_a_row = 0
        self.log("train_loss", loss, batch_size=len(batch.ids), sync_dist=distributed.count() > 1)
        weight = self.config.loss.norm_decay
        return loss + weight * norm_decay(self.model) if weight else loss

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a training batch per label, a scalar; divided by the mean number of labels over processes.

        With `model.sizes`, the mean over the networks that the step trains.
        """
        found = self._found(batch)
        terms = {f"train_{name}": term for name, term in found.terms.items()}
        self.log_dict(terms, batch_size=len(batch.ids), sync_dist=distributed.count() > 1)
        return found.loss

    def _found(self, batch: Batch) -> Found:
        labels = distributed.total(batch.label_lengths.sum()) / distributed.count()
        encoded = encode(self.model, batch, labels.clamp(min=1))
        found = self.objective(self.model, encoded)
        if self._smaller is None:
            return found
        losses, terms = [found.loss], dict(found.terms)
        for size, smaller in self._smaller.losses(encoded, self.global_step):
            losses.append(smaller.loss)
            terms |= {f"{size}_{name}": term for name, term in smaller.terms.items()}
        return Found(torch.stack(losses).mean(), terms)

    def rehearse(self, batch: Batch) -> Tensor:
        """The loss of a batch on which no step is taken: a scalar. Nothing is logged or counted."""
        with quantized_step(self.model):
            return self._found(batch).loss

    def _method(self) -> Method:
        """How the weights are quantized at the present precision: trained, distilled and so on."""
        if precision_of(self.model) is Precision.float:
            return Method.float
        if self.config.schedule.together:
            return Method.shared
        taught = self.teacher is not None and self.teacher.teaches(precision_of(self.model))
        return Method.distilled if taught else Method.qat

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        """Leave weights, statistics and the optimizer's averages as they are in a step that is skipped.

        Of the encoder, leave weights and averages as they are while `optimizer.frozen_encoder_steps` last.
        """
        self.step_was_skipped, self._skipping = self._skipping, False
        if self.step_was_skipped:
            drop_gradients(self.parameters())
            if self._statistics is not None:
                self._statistics.restore()
        self._statistics = None
        if self.global_step < self.config.optimizer.frozen_encoder_steps:
            drop_gradients(self.model.encoder.parameters())

    def _skip(self, ids: list[str]) -> None:
        self._skipping = True
        self.skipped_in_a_row += 1
        found = [name for share in distributed.gathered(ids) for name in share]
        self.skipped_ids = (self.skipped_ids + found)[-100:]
        self.log("skipped_in_a_row", float(self.skipped_in_a_row), batch_size=1, prog_bar=True)
        if self.skipped_in_a_row >= MAX_SKIPPED_STEPS:
            shown = ", ".join(self.skipped_ids[-2 * len(found) :])
            raise UserError(
                f"the loss was not finite in {MAX_SKIPPED_STEPS} steps in a row; the last utterances: {shown}. "
                "Listen to them, or lower optimizer.learning_rate, or lower trainer.gradient_clip"
            )

    @checked_at_end()
    def validation_step(self, batch: Batch, _index: int) -> None:
        """Greedy transcripts and loss of a batch."""
        encoded = encode(self.model, batch, batch.label_lengths.sum().clamp(min=1))
        loss = float(self.objective(self.model, encoded).loss)
        hypotheses = greedy(self.model, encoded.output, encoded.lengths)
        texts = [self.tokenizer.decode(hypothesis.ids) for hypothesis in hypotheses]
        self._validation.append(_Validated(batch.ids, batch.texts, texts, loss))

    def on_validation_epoch_end(self) -> None:
        """Loss and word error rate over the dev part, the same in every process.

        Of a script without spaces between words, the character error rate takes its place.
        """
        shares = distributed.gathered(self._validation)
        self._validation = []
        # Identified by its first utterance: a process without a batch of its own is given that of another process.
        batches = list({batch.ids[0]: batch for share in shares for batch in share}.values())
        if not batches:
            return
        ids = [one for batch in batches for one in batch.ids]
        references = [one for batch in batches for one in batch.references]
        hypotheses = [one for batch in batches for one in batch.hypotheses]
        self.log("val_loss", sum(len(batch.ids) * batch.loss for batch in batches) / len(ids))
        self.log("val_wer", score(ids, references, hypotheses, units_of(references)).wer)
        for name, metric in self.metrics.items():
            self.log(f"val_{name}", float(metric(hypotheses, references)))
            metric.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW on `parameter_groups`."""
        options = self.config.optimizer
        groups = parameter_groups(self, self.model, options)
        betas = (options.betas[0], options.betas[1])
        # Lightning refuses to clip the gradients of a fused optimizer under autocast. None, unlike False, still lets
        # torch update all parameters of a GPU with a few kernels.
        fused = True if self.trainer.precision == "32-true" else None
        optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, fused=fused)
        steps = int(self.trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(options.schedule, step, options.warmup_steps, steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what `evaluate.py` needs to rebuild the model without options: plain data only."""
        layers = list(quantized_modules(self.model).values())
        checkpoint["nibble"] = {
            "config": plain(self.config),
            "tokenizer": self.tokenizer.model,
            "corpus": self.corpus,
            "step": self.steps_before + self.global_step,
            "heard_s": self.heard_s,
            "precision": precision_of(self.model).value,
            "blend": layers[0].blend if layers else 1.0,
            "method": self._method().value,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting steps and speech where the checkpoint stood."""
        ours = checkpoint["nibble"]
        self.steps_before = ours["step"] - checkpoint["global_step"]
        self.heard_s = ours.get("heard_s") or 0.0  # absent in older checkpoints

"""One training run, from a configuration to a bundle and a record."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.loggers import Logger
from torchmetrics import Metric

from nibble import distributed, stopping, writing
from nibble.config import Config
from nibble.data.datamodule import SpeechDataModule
from nibble.data.feeding import Feeding
from nibble.data.options import Tokens
from nibble.device import choose_device
from nibble.errors import UserError
from nibble.evaluation.finished_run import evaluate_run
from nibble.model.transducer import Transducer, encoder_outline
from nibble.quant.callback import QuantizationCallback
from nibble.quant.freezing import check_freezing
from nibble.quant.low_rank import factorize
from nibble.quant.pruning import PruningCallback
from nibble.quant.rules import assign
from nibble.quant.spec import ActivationGranularity, Rule, ScheduleConfig
from nibble.runs import records, run_file, speech
from nibble.runs.checkpoint_writer import CheckpointFiles
from nibble.runs.run_folder import RunFolder
from nibble.shapes import shapes_only
from nibble.terminal import Console
from nibble.training import components, launch
from nibble.training.checkpoints import Checkpoints
from nibble.training.early_stop import FinalPhaseEarlyStopping
from nibble.training.initialisation import kept_tokenizer, load_weights
from nibble.training.interruption import Interruption
from nibble.training.largest_batch import LargestBatch
from nibble.training.logged_result import log_result
from nibble.training.loggers import build_loggers, check_loggers, finish_loggers
from nibble.training.module import TransducerModule
from nibble.training.out_of_memory import out_of_memory
from nibble.training.profiler import PrintedProfiler
from nibble.training.progress import TrainingProgress
from nibble.training.reproducibility import Reproducible
from nibble.training.resume import resumed
from nibble.training.skipping import Averages
from nibble.training.speed import Speed
from nibble.training.teacher import find_teacher

console = Console(stderr=True)


def train(config: Config) -> dict[str, Any] | None:
    """Train, write `last.ckpt`, `best.ckpt` and `bundle/` below `config.run_dir`, evaluate, append a record.

    A run that `config.resume` finds complete is left as it is.

    Returns:
        the record of the evaluation on the dev parts; None in all but the first of processes started together.

    Raises:
        UserError: an option, the corpus or the machine doesn't allow the run.
        Interrupted: Ctrl-C or SIGTERM; the run is saved.
    """
    from_file = config.resume is not None and Path(config.resume).is_file()
    config = resumed(config)
    check_rules(config)
    check_hardware(config)
    check_loggers(config.logger)
    components.classes(pl.Callback, "callbacks", config.callbacks)
    components.classes(Metric, "metrics", config.metrics)  # type: ignore[type-abstract]
    launch.check(config)
    folder = writing.writable_folder(Path(config.run_dir), "hydra.run.dir")
    rank, started = distributed.started()
    if rank > 0:
        if run_file.record(folder) is None or from_file:
            fit(config)
        return None
    with run_file.claimed(folder), stopping.go_on_with(f"python train.py resume={folder}"):
        for place in (folder, RunFolder(folder).checkpoints):
            writing.clear(place)
        record = run_file.record(folder)
        if record is not None and not from_file:
            console.print(f"{folder} is complete: dev WER {record.wer:.2%}")
        else:
            run_file.begin(folder, config)
            wanted = launch.count(config.hardware)
            if started < wanted:
                launch.start(folder, wanted)
            else:
                fit(config)
        return _recorded(folder, config.records)


def _recorded(folder: Path, path: str | None) -> dict[str, Any]:
    """The record of a complete run, added to those at `path` unless it is there: the run may be killed in between."""
    record = run_file.record(folder)
    assert record is not None
    if path is not None:
        records.append(Path(path), record)
    return asdict(record)


def fit(config: Config) -> None:
    """Train from the first step, or from the checkpoint `config.resume`, to the last; then evaluate.

    Of processes that train together each calls it, and the first one evaluates. What is found stands in run.json, which
    makes the run complete.
    """
    for lightning in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(lightning).setLevel(logging.WARNING)  # importing Lightning has set it to INFO
    teacher = find_teacher(config)
    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)
    folder = Path(config.run_dir)
    writing.writable_folder(RunFolder(folder).checkpoints, "hydra.run.dir")

    encoder = encoder_outline(config.model, config.features)
    frames = encoder.output_length if config.has_ctc else None
    rank, number = distributed.started()
    kept = config.data.tokens is Tokens.kept and config.init_from is not None
    feeding = Feeding(
        tokenizer=kept_tokenizer(Path(str(config.init_from))) if kept else None,
        encoded_frames=frames,
        processes=(rank, number),
        max_validation_utterances=config.trainer.max_validation_utterances,
    )
    data = SpeechDataModule(config.data, config.features, config.hardware, config.seed, feeding=feeding)
    if number == 1:
        data.prepare_data()
    else:
        with FileLock(RunFolder(folder).data_lock):  # the first process finds or makes all that the others then find
            data.prepare_data()
    data.setup("fit")
    if rank == 0:
        speech.remember(folder, data.corpus_folder)

    torch.manual_seed(config.seed)
    if teacher is not None:
        teacher.check_labels(data.tokenizer)
    module = TransducerModule(config, data.tokenizer, data.corpus_name, teacher)
    console.quiet = rank > 0
    if config.init_from:
        start = load_weights(module.model, Path(config.init_from), config.quant.low_rank, data.tokenizer)
        if start.said is not None:
            console.print(start.said)
        module.steps_before, module.heard_s = start.steps, start.heard_s

    batches = data.batches_per_epoch()
    steps_per_epoch = max(1, batches // config.trainer.accumulate)
    max_steps = config.trainer.max_steps or config.trainer.max_epochs * steps_per_epoch
    parameters = sum(p.numel() for p in module.model.parameters())
    many = f" for each of {number} processes" if number > 1 else ""
    for line in data.summaries():
        console.print(line)
    console.print(
        f"{config.model.name}: {parameters / 1e6:.2f} million parameters, {data.tokenizer.size} tokens; "
        f"{data.corpus_name}: {batches} batches an epoch{many}; {max_steps} steps at {config.quant.name} -> {folder}"
    )
    loggers = build_loggers(config, folder) if rank == 0 else []
    try:
        trainer = build_trainer(config, max_steps, steps_per_epoch, loggers)
        trainer.fit(module, datamodule=data, ckpt_path=config.resume, weights_only=True)
    except RuntimeError as error:
        raise out_of_memory(error, config, f"after {module.global_step} steps") or error from error
    else:
        if rank == 0:
            result = evaluate_run(folder, console=console)
            run_file.complete(folder, asdict(result.record))
            log_result(loggers, RunFolder(folder).bundle, result, step=max_steps)
    finally:
        finish_loggers(loggers)


def build_trainer(config: Config, max_steps: int, steps_per_epoch: int, loggers: list[Logger]) -> pl.Trainer:
    """Lightning's trainer with this project's callbacks, and those that `callbacks=` names.

    The user's stand before `Checkpoints`, so that what they keep is kept as it is after a validation.
    """
    options, hardware, run = config.trainer, config.hardware, RunFolder(Path(config.run_dir))
    schedule = config.schedule if config.quant.rules else ScheduleConfig()  # a float run has one phase
    callbacks: list[pl.Callback] = [
        QuantizationCallback(config.quant, schedule, target="model", log_every_steps=options.log_layers_every_steps),
        PruningCallback(schedule.prune, target="model"),
        Reproducible(config.seed),
        LargestBatch(config),
        TrainingProgress(),
        *components.build(pl.Callback, "callbacks", config.callbacks).values(),
    ]
    if options.ema_decay is not None:
        callbacks.insert(1, Averages(options.ema_decay))
    if options.early_stop_patience is not None:
        callbacks.append(FinalPhaseEarlyStopping(options.early_stop_patience, schedule))
    callbacks += [Checkpoints(run, options.checkpoint_every_steps, schedule), Interruption(), Speed()]
    validate_every = options.validate_every_steps or steps_per_epoch
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=launch.strategy(config),
        precision=hardware.precision,  # type: ignore[arg-type]
        max_steps=max_steps,
        max_epochs=-1,
        accumulate_grad_batches=options.accumulate,
        gradient_clip_val=options.gradient_clip,
        val_check_interval=validate_every * options.accumulate,
        limit_val_batches=1.0 if validate_every <= max_steps else 0,  # the evaluation at the end is enough
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=options.log_every_steps,
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # Lhotse's sampler divides the data itself
        plugins=[CheckpointFiles()],
        profiler=PrintedProfiler() if options.profile else None,
        default_root_dir=run.path,
    )


def check_rules(config: Config) -> None:
    """Check that every rule matches a module of this model, on a model without storage, before data is read."""
    if config.loss.norm_decay and not any(rule.weight for rule in config.quant.rules):
        raise UserError(
            f"loss.norm_decay={config.loss.norm_decay:g} is for quantized weights, and quant={config.quant.name} "
            "has none; leave loss.norm_decay out, or give quant=int4"
        )
    for network in (config.model, *(config.model.at_size(size.name) for size in config.model.sizes)):
        with shapes_only():
            model = Transducer(network, config.features, vocabulary_size=64)
            if config.quant.low_rank:
                factorize(model, config.quant.low_rank)
            if config.quant.rules:
                check_parts(config, assign(model, config.quant.rules))
                check_freezing(config.quant, config.schedule)


def check_parts(config: Config, rules: dict[str, Rule]) -> None:
    """Check that a layer that gets its input in parts has no activation scale that needs all parts.

    Args:
        config: of the run.
        rules: module name -> the rule that won it.
    """
    for name, rule in rules.items():
        spec = rule.activation
        if not config.loss.fused or not name.startswith("joiner.output") or spec is None:
            continue
        if spec.static or spec.granularity is not ActivationGranularity.per_token:
            kind = "static=true" if spec.static else f"granularity={spec.granularity.value}"
            raise UserError(
                f"loss.fused=true gives {name} a part of its input at a time, but activation {kind} needs all of it "
                f"for a scale (quant={config.quant.name}); give loss.fused=false, or before the other rules one that "
                "matches joiner.output, with a dynamic per_token activation"
            )


def check_hardware(config: Config) -> None:
    """Check that the requested GPUs exist."""
    if config.hardware.accelerator not in ("gpu", "cuda"):
        return
    choose_device(config.hardware)
    visible = torch.cuda.device_count()
    if config.hardware.devices > visible:
        raise UserError(f"hardware.devices={config.hardware.devices}, but {visible} GPUs are visible")

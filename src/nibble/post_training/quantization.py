"""Quantizes a float checkpoint without training, with the help of calibration speech."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from nibble.data.batch import Batch
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.model.transducer import Transducer
from nibble.post_training.options import QuantizeConfig, Rounding
from nibble.progress import track
from nibble.quant.calibration import second_moments, settle_static_scales
from nibble.quant.convert import quantized_modules, set_precision
from nibble.quant.gptq import OutputError, freeze_gptq
from nibble.quant.spec import Precision
from nibble.runs.checkpoint import quantize
from nibble.runs.loaded import Loaded
from nibble.runs.method import Method
from nibble.runs.run_folder import RunFolder
from nibble.runs.speech import speech
from nibble.runs.unaugmented import first_utterances, undisturbed


class PostTraining(NamedTuple):
    """A model at the precision of the rules, and how its weights were rounded."""

    loaded: Loaded
    utterances: int  # of calibration speech
    errors: dict[str, OutputError]  # of each weight that GPTQ rounded
    nearest: list[str]  # the weights that were rounded to nearest


def quantize_without_training(loaded: Loaded, options: QuantizeConfig, device: torch.device) -> PostTraining:
    """A float model at the precision of `options.quant`, rounded as they say.

    A run for several precisions was trained at this precision already, so it is rounded to nearest, as in training.

    Raises:
        UserError: the model is quantized already, a rule does not fit it, there is nothing for GPTQ to round, or its
            training speech is needed and absent.
    """
    quantized = quantize(loaded, options.quant)
    model = quantized.model.to(device)
    weights = [
        f"{name}.{weight}"
        for name, layer in quantized_modules(model).items()
        if layer.weight_spec is not None
        for weight in layer.weight_names
    ]
    gptq = options.rounding is Rounding.gptq
    if gptq and quantized.method is Method.shared:
        raise UserError(
            f"{loaded.path} was trained at {options.quant.name}, rounded to nearest; leave rounding=gptq out"
        )
    if gptq and not weights:
        raise UserError(f"quant={options.quant.name} leaves all weights in float; leave rounding=gptq out")
    if not options.needs_speech:
        return PostTraining(quantized, 0, {}, weights)
    batches = [batch.to(device) for batch in calibration_batches(loaded, options)]
    errors: dict[str, OutputError] = {}
    if gptq:
        set_precision(model, Precision.float)
        moments = second_moments(model, lambda: _run(model, batches, "calibration"))
        set_precision(model, quantized.precision)
        errors = freeze_gptq(model, moments)
        quantized = replace(quantized, method=Method.gptq)
    settle_static_scales(model, lambda: _run(model, batches, "activation scales"))
    model.cpu()
    return PostTraining(quantized, len(batches), errors, [name for name in weights if name not in errors])


def calibration_batches(loaded: Loaded, options: QuantizeConfig) -> list[Batch]:
    """Utterances drawn from the training speech, one a batch, so that no padding is calibrated on.

    Raises:
        UserError: the speech is not there.
    """
    config, root = speech(loaded.config, RunFolder.of(loaded.path).path, options.data)
    hardware = HardwareConfig(max_batch_utterances=1, workers=0)
    data = undisturbed(replace(config, seed=options.seed), root, loaded.tokenizer, hardware)
    count = options.calibration_utterances
    try:
        return list(track(first_utterances(data, count), "reading speech", count))
    except UserError as error:
        raise UserError(
            f"{error}. Calibration needs the speech that the model was trained on: say where it is with "
            "data.corpus_dir=DIR, or do without: rounding=nearest and dynamic activation scales"
        ) from error


def _run(model: Transducer, batches: Sequence[Batch], title: str) -> None:
    for batch in track(batches, title, len(batches)):
        model(batch.features, batch.feature_lengths, batch.labels, batch.label_lengths)

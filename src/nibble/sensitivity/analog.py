"""Measures which kind of layer suffers most from the noise of analog weights: errors against the level of the noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from nibble.data.batch import Batch
from nibble.device import choose_device
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate
from nibble.percent import percent
from nibble.progress import track
from nibble.quant.convert import draw_noise, quantized_modules
from nibble.quant.layer import QuantizedLayer
from nibble.quant.spec import Precision
from nibble.runs import speech
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import Loaded
from nibble.runs.run_folder import RunFolder
from nibble.sensitivity.options import SensitivityConfig
from nibble.sensitivity.speech import read_batches
from nibble.terminal import Table

ALL = "all"  # the row of all layers together


@dataclass
class NoiseErrors:
    """Error rates under noise of several levels."""

    exact: float  # without any noise or converter
    levels: list[float]  # multiples of the noise as published
    rates: dict[str, list[list[float]]]  # layer type -> for each level, the error rate of each draw

    def table(self) -> Table:
        """A row for each layer type: mean and worst draw at each level."""
        rows = [
            [name, *(f"{percent(mean(rates))} ({percent(max(rates))})" for rates in found)]
            for name, found in self.rates.items()
        ]
        return Table(
            ["analog layers", *(f"noise × {level:g}" for level in self.levels)],
            rows,
            title=f"errors with analog layers of one type, mean (worst) of the draws; in float {percent(self.exact)}",
        )


def noise_errors(options: SensitivityConfig) -> NoiseErrors:
    """Let layers of one type at a time be analog, then all, with the other layers in float.

    Raises:
        UserError: the checkpoint is neither float nor analog.
    """
    loaded = _analog_model(options)
    device = choose_device(options.hardware)
    if options.hardware.threads:
        torch.set_num_threads(options.hardware.threads)
    config, root = speech.speech(loaded.config, RunFolder.of(loaded.path).path, options.data)
    batches = read_batches(config, root, loaded.tokenizer, options.hardware, options.part, options.max_utterances)
    loaded.model.to(device)
    types = layers_by_type(loaded)
    found = NoiseErrors(_rate(loaded, batches, {}, 0), list(options.noise), {name: [] for name in types})
    tasks = [(name, level) for name in types for level in options.noise]
    for name, level in track(tasks, "noise in layers of one type at a time", len(tasks)):
        levels = dict.fromkeys(types[name], level)
        found.rates[name].append([_rate(loaded, batches, levels, draw) for draw in range(options.draws)])
    return found


def layers_by_type(loaded: Loaded) -> dict[str, list[str]]:
    """Layer type, such as feed_forward, -> the names of its analog layers; first all of them."""
    names = [name for name, layer in quantized_modules(loaded.model).items() if layer.rule.analog is not None]
    types: dict[str, list[str]] = {ALL: names}
    for name in names:
        types.setdefault(_type(name), []).append(name)
    return types


def _type(name: str) -> str:
    """encoder.blocks.3.feed_forward1.linear1 -> feed_forward; encoder.subsampling.conv1 -> subsampling."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if number is not None and number + 1 < len(parts):
        return parts[number + 1].rstrip("0123456789")
    return parts[1] if parts[0] == "encoder" and len(parts) > 1 else parts[0]


def _rate(loaded: Loaded, batches: Sequence[Batch], levels: Mapping[str, float], draw: int) -> float:
    """The error rate with some layers analog, at their level of noise, and the others in float."""
    for name, layer in quantized_modules(loaded.model).items():
        _set(layer, levels.get(name))
    draw_noise(loaded.model, draw)
    return evaluate(loaded, batches).score.wer


def _set(layer: QuantizedLayer, level: float | None) -> None:
    layer.set_precision(Precision.float if level is None else Precision.rules, 1.0)
    if level is not None and layer.rule.analog is not None:
        layer.analog_spec = replace(layer.rule.analog, noise=level)


def _analog_model(options: SensitivityConfig) -> Loaded:
    loaded = load_checkpoint(Path(str(options.checkpoint)))
    if options.quant is not None:
        loaded = quantize(loaded, options.quant)
    if loaded.frozen or not any(layer.rule.analog for layer in quantized_modules(loaded.model).values()):
        raise UserError(
            f"{loaded.path} is at {loaded.quant}, and noise=[…] is of analog weights; give quant=analog with a float "
            "checkpoint, or the checkpoint of a run that was trained with it"
        )
    return loaded

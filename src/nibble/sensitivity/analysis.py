"""Finds the damage of each layer of a float checkpoint, and the rules that fit a budget."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from scipy.stats import spearmanr

from nibble import provenance
from nibble.device import choose_device
from nibble.errors import UserError
from nibble.runs import speech
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded
from nibble.runs.method import Method
from nibble.runs.run_folder import RunFolder
from nibble.sensitivity.assignment import monotone, total
from nibble.sensitivity.budget import assign_within, assigned_bytes, average_bits, check_budget, mixed, weight_counts
from nibble.sensitivity.damage import Damage, measured_damage
from nibble.sensitivity.fisher import estimated_damage
from nibble.sensitivity.options import DamageMethod, SensitivityConfig
from nibble.sensitivity.picture import draw
from nibble.sensitivity.rules import as_yaml
from nibble.sensitivity.speech import read_batches
from nibble.sensitivity.table import DamageTable, write_table
from nibble.writing import write_text


@dataclass
class Analysis:
    """What was found."""

    weights: dict[str, int]  # layer -> how many it has
    damage: Damage  # found by the chosen method
    estimate: Damage  # from gradients, with either method
    assignment: dict[str, int] | None = None  # layer -> bits; None without a budget
    prediction: str = ""  # the predicted cost of the assignment, in words
    written: list[Path] = field(default_factory=list)

    def rank_correlation(self, bits: int) -> float:
        """Spearman's correlation, over the layers, of damage and estimate at this width."""
        columns = ([table[layer][bits] for layer in self.weights] for table in (self.damage, self.estimate))
        return float(spearmanr(*columns).statistic)


def analyse(options: SensitivityConfig, conf: Path) -> Analysis:
    """Find the damage of each layer, assign bits if there is a budget, and write rules, picture and table.

    Args:
        options: of the command.
        conf: the folder of configurations; rules go to quant/ in it unless `output` says otherwise.

    Raises:
        UserError: no float weights, an impossible budget, or a file of that name is there already.
    """
    rules_file = Path(options.output) if options.output else conf / "quant" / f"{options.name}.yaml"
    budget = options.average_bits is not None or options.target_bytes is not None
    if budget and rules_file.exists():
        raise UserError(f"{rules_file} exists already; give another name= or output=, or remove it")
    loaded = _float_model(Path(str(options.checkpoint)))
    check_budget(loaded, options)
    device = choose_device(options.hardware)
    if options.hardware.threads:
        torch.set_num_threads(options.hardware.threads)
    run = RunFolder.of(loaded.path).path
    config, root = speech.speech(loaded.config, run, options.data)
    part = read_batches(config, root, loaded.tokenizer, options.hardware, options.part, options.max_utterances)
    batches = [batch.to(device) for batch in part]
    loaded.model.to(device)
    estimate = estimated_damage(loaded, options.bits, batches)
    damage = measured_damage(loaded, options.bits, batches) if options.method is DamageMethod.loss else estimate
    found = Analysis(weight_counts(loaded), damage, estimate)
    if budget:
        _assign(found, loaded, options, rules_file)
    draw(damage, found.assignment, Path(options.plot), f"{config.name}, {options.method.value}")
    heard = f"{sum(map(len, batches))} utterances of the {options.part.value} speech"
    table = DamageTable.of(options.name, options.method.value, heard, damage, found.assignment)
    found.written += [Path(options.plot), write_table(table, run)]
    return found


def _assign(found: Analysis, loaded: Loaded, options: SensitivityConfig, file: Path) -> None:
    """Solve for the bits, predict what they cost, and write the rules."""
    damage = monotone(found.damage)
    found.assignment = assign_within(loaded, damage, options)
    quant = mixed(loaded, found.assignment, options.name)
    found.prediction = (
        f"predicted: {total(damage, found.assignment):+.4f} nats a label over float ({options.method.value}), "
        f"{average_bits(found.weights, found.assignment):.2f} bits a weight, "
        f"{assigned_bytes(loaded, found.assignment, options.name):,} bytes in the bundle"
    )
    write_text(file, as_yaml(quant, [provenance.command(), found.prediction]), "choose another with output=FILE")
    found.written.append(file)


def _float_model(path: Path) -> Loaded:
    loaded = load_checkpoint(path)
    if loaded.method is not Method.float:
        raise UserError(
            f"{loaded.path} is at {loaded.quant}; layers are compared from float weights: give a float run, "
            "or checkpoints/phase_1_float.ckpt of a staged one"
        )
    return loaded

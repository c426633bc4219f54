"""Finds the best system of one run under a budget: `model.sizes` and `schedule=together` leave many in it.

Nothing is predicted: each system is evaluated on the dev speech as `evaluate.py` does it, and recorded. The best one
has the fewest errors of those within every budget, and of equals the smallest bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.percent import percent
from nibble.progress import track
from nibble.quant.spec import QuantConfig
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.method import Method
from nibble.runs.records import Record
from nibble.sensitivity.options import SensitivityConfig
from nibble.terminal import Table


@dataclass(frozen=True)
class System:
    """One network of a run at one precision, as measured."""

    size: str | None  # of `model.sizes`; None: the whole network
    record: Record

    def exceeds(self, options: SensitivityConfig) -> list[str]:
        """The budgets that it does not keep: bytes, RTF, memory."""
        memory = self.record.memory.ran_bytes if self.record.memory is not None else 0
        costs = {
            "bytes": (self.record.bundle_bytes, options.target_bytes),
            "RTF": (self.record.rtf, options.max_rtf),
            "memory": (memory, options.max_memory_bytes),
        }
        return [name for name, (cost, budget) in costs.items() if budget is not None and cost > budget]


@dataclass(frozen=True)
class Search:
    """Every system that was tried, the fewest errors first."""

    systems: Sequence[System]
    options: SensitivityConfig

    @property
    def best(self) -> System | None:
        """The first within every budget; None if there is none."""
        return next((one for one in self.systems if not one.exceeds(self.options)), None)

    def table(self) -> Table:
        """A row for each system."""
        rows = []
        for one in self.systems:
            record, exceeded = one.record, one.exceeds(self.options)
            memory = "" if record.memory is None else f"{record.memory.ran_bytes:,}"
            said = "best" if one is self.best else f"too much: {', '.join(exceeded)}" if exceeded else "within"
            figures = (percent(record.wer), f"{record.bundle_bytes:,}", memory, f"{record.rtf:.4f}")
            rows.append([record.model, record.quant, *figures, said])
        part = f"{self.systems[0].record.part} of {self.systems[0].record.corpus}"
        header = ("system", "quant", "WER", "bytes", "memory", "RTF", "budget")
        return Table(header, rows, left=2, title=f"every system of {self.options.checkpoint} on {part}")

    def verdict(self) -> str:
        """The command that exports the best one, or by how much the budget is too small."""
        if self.best is not None:
            size = "" if self.best.size is None else f" size={self.best.size}"
            return f"python -m nibble.export checkpoint={self.options.checkpoint}{size} quant={self.best.record.quant}"
        records = [one.record for one in self.systems]
        least = f"{min(one.bundle_bytes for one in records):,} bytes, RTF {min(one.rtf for one in records):.4f}"
        if memories := [one.memory.ran_bytes for one in records if one.memory is not None]:
            least += f", {min(memories):,} bytes of memory"
        return f"none of {len(records)} systems keeps the budget; the least of each cost: {least}"


def has_systems(options: SensitivityConfig) -> bool:
    """Whether to choose among the systems of the run: it was trained at several precisions, or has sizes and a budget.

    Raises:
        UserError: a budget of time or memory for a run with one system.
    """
    loaded = load_checkpoint(Path(str(options.checkpoint)))
    of_systems = options.max_rtf is not None or options.max_memory_bytes is not None
    if loaded.method is Method.shared or (loaded.sizes and (of_systems or options.target_bytes is not None)):
        return True
    if of_systems:
        raise UserError(
            f"max_rtf and max_memory_bytes choose among the systems of one run, and {loaded.path} has one; give a run "
            "with model.sizes or schedule=together, or target_bytes= alone for the bits of each layer"
        )
    return False


def search(options: SensitivityConfig) -> Search:
    """Evaluate every size of a run at every precision that it was trained at, and append the records.

    Raises:
        UserError: `average_bits`, which is for the bits of single layers; or what `evaluate.py` refuses.
    """
    if options.average_bits is not None:
        raise UserError(
            f"average_bits={options.average_bits:g} is for the layers of a float run; give target_bytes, max_rtf or "
            "max_memory_bytes"
        )
    loaded = load_checkpoint(Path(str(options.checkpoint)))
    names: list[str | None] = [None]
    if loaded.method is Method.shared:
        names = [one.value for one in loaded.config.schedule.together]
    tried = [(size, name) for size in (None, *loaded.sizes) for name in names]
    found = [System(size, _measured(options, size, name)) for size, name in track(tried, "systems", len(tried))]
    return Search(sorted(found, key=lambda one: (one.record.wer, one.record.bundle_bytes)), options)


def _measured(options: SensitivityConfig, size: str | None, quant: str | None) -> Record:
    at = None if quant is None else QuantConfig(quant)
    (result,) = evaluate_checkpoints(
        EvaluateConfig(checkpoint=options.checkpoint, size=size, quant=at, data=options.data, hardware=options.hardware)
    )
    return result.record

"""The damage of each layer as a file in the run's folder, for reports."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from nibble.errors import UserError
from nibble.plain import build, parse
from nibble.runs.run_folder import RunFolder
from nibble.sensitivity.damage import Damage
from nibble.writing import write_text


@dataclass(frozen=True)
class DamageTable:
    """The result of one analysis."""

    name: str  # of the analysis
    method: str  # loss or fisher
    speech: str  # that it was measured on
    damage: dict[str, dict[str, float]]  # layer -> bits -> nats per label
    assignment: dict[str, int] | None  # layer -> bits; None without a budget

    @classmethod
    def of(
        cls, name: str, method: str, speech: str, damage: Damage, assignment: dict[str, int] | None
    ) -> "DamageTable":
        """With bits as texts, since JSON's names are texts."""
        text = {layer: {str(bits): value for bits, value in widths.items()} for layer, widths in damage.items()}
        return cls(name, method, speech, text, assignment)


def write_table(table: DamageTable, run: Path) -> Path:
    """Write the table into the folder of a run, and return its path.

    Raises:
        UserError: writing is not allowed there.
    """
    path = RunFolder(run).damage_table(table.name)
    write_text(path, json.dumps(asdict(table), indent=1, allow_nan=False) + "\n", "analyse a copy of the run")
    return path


def read_tables(run: Path) -> list[DamageTable]:
    """Every table in the folder of a run, by name.

    Raises:
        UserError: a file is damaged.
    """
    return [_read(path) for path in RunFolder(run).damage_tables()]


def _read(path: Path) -> DamageTable:
    try:
        return build(DamageTable, parse(path.read_bytes()))
    except (OSError, UserError) as error:
        raise UserError(f"{path} is damaged: {error}; remove it, or run python -m nibble.sensitivity again") from error

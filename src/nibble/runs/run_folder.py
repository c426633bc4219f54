"""The files of a run: the one place that spells their names.

runs/NAME/RUN/
  run.json                      which run it is and, once it is finished, its evaluation: `nibble.runs.run_file`
  speech.json                   where its speech lies: `nibble.runs.speech`
  checkpoints/last.ckpt         to go on from
  checkpoints/best.ckpt         at the lowest dev WER of the last phase; absent if that was never measured
  checkpoints/phase_1_float.ckpt    at the end of each phase but the last
  bundle/                       what is deployed: `nibble.runs.bundle`
  csv/metrics.csv               curves
  wandb/id.txt                  the run's name at Weights & Biases
  rank1.log, rank1.error        of each process after the first, of a run on several devices
  sensitivity_NAME.json         the damage of each layer at few bits: `nibble.sensitivity.table`
  bundle_int4_gptq/             another bundle, named by the rule of `nibble.runs.variant`
  sherpa_w4a8/                  an export, named by the same rule: `nibble.runs.exported`
  .hydra/overrides.yaml         what was typed
  .lock, .data.lock             held by the process that trains there, and by the one that prepares data
"""

from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS = "checkpoints"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files, which need not exist."""

    path: Path

    @classmethod
    def of(cls, checkpoint: Path) -> "RunFolder":
        """The run that a checkpoint file or a bundle lies in."""
        folder = checkpoint.parent
        return cls(folder.parent if folder.name == CHECKPOINTS else folder)

    @property
    def run_file(self) -> Path:
        """The identity of the run, and its evaluation."""
        return self.path / RUN_FILE

    @property
    def speech_file(self) -> Path:
        """Where the speech of the run lies."""
        return self.path / "speech.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def last_checkpoint(self) -> Path:
        """To go on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """At the lowest dev WER of the last phase."""
        return self.checkpoints / "best.ckpt"

    def phase_checkpoint(self, number: int, precision: str) -> Path:
        """At the end of a phase: its number, counted from 1, and its precision."""
        return self.checkpoints / f"phase_{number}_{precision}.ckpt"

    @property
    def bundle(self) -> Path:
        """What is deployed."""
        return self.path / "bundle"

    @property
    def metrics(self) -> Path:
        """Curves, of the CSV logger."""
        return self.path / "csv" / "metrics.csv"

    @property
    def wandb_id(self) -> Path:
        """The name of the run at Weights & Biases."""
        return self.path / "wandb" / "id.txt"

    def log(self, rank: int) -> Path:
        """What the process `rank` of several prints."""
        return self.path / f"rank{rank}.log"

    def error(self, rank: int) -> Path:
        """The text of the `UserError` that ended the process `rank` of several."""
        return self.path / f"rank{rank}.error"

    def damage_table(self, name: str) -> Path:
        """The damage of each layer, of the analysis `name`."""
        return self.path / f"sensitivity_{name}.json"

    def damage_tables(self) -> list[Path]:
        """Those that are there, by name."""
        return sorted(self.path.glob("sensitivity_*.json"))

    @property
    def overrides(self) -> Path:
        """The command's options, as Hydra saves them."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def lock(self) -> Path:
        """Held by the process that trains there."""
        return self.path / ".lock"

    @property
    def data_lock(self) -> Path:
        """Held by the process that prepares the data for several."""
        return self.path / ".data.lock"

    def is_run(self) -> bool:
        """Whether a run has begun there."""
        return self.run_file.is_file() or self.last_checkpoint.is_file()

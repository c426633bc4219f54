"""Train a Conformer-Transducer at the precision of your choice.

python train.py experiment=demo                  float -> int8 -> int4 on a laptop
python train.py quant=int4 model=conformer_l data=librispeech optimizer=adamw_noam hardware=gpu
python train.py -m quant=float,int4 seed=1,2,3 experiment=digits
python train.py init_from=parakeet.nemo quant=int4 schedule=fine_tune data.corpus_dir=/speech
python train.py resume=runs/default/2026-01-31_12-00-00_int4_seed1
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nibble.commands import hydra_command

CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(config: DictConfig) -> float | None:
    """Compose, train, and return the WER for a sweeper to minimise; None in a process that only helps another."""

    def task(composed: DictConfig) -> float | None:
        from nibble.composition import typed
        from nibble.imports.adoption import adopted
        from nibble.training.run import train

        config, said = adopted(typed(composed), HydraConfig.get().overrides.task)
        if said is not None:
            print(said, file=sys.stderr)
        record = train(config)
        return None if record is None else float(record["wer"])

    found: float | None = hydra_command.report_errors(task, config)
    return found


if __name__ == "__main__":
    hydra_command.run(CONF, "train", main)

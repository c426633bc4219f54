"""Measure trained models: word error rate with its interval, size, speed; several are compared on the same utterances.

python evaluate.py checkpoint=runs/digits/2026-01-31_12-00-00_int4_seed1 part=test
python evaluate.py experiment=digits decoding=beam beam_width=8
python evaluate.py checkpoint=[runs/float_run,runs/int4_run]
python evaluate.py checkpoint=runs/float_run quant=int4
python evaluate.py checkpoint=[runs/float_run,runs/int4_run] condition=all
python evaluate.py checkpoint=runs/int4_run/sherpa_w4a8 backend=sherpa
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from nibble.commands import hydra_command

CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(config: DictConfig) -> None:
    """Compose, evaluate, print."""

    def task(composed: DictConfig) -> None:
        from nibble.composition import typed_as
        from nibble.evaluation.evaluate import evaluate_checkpoints
        from nibble.evaluation.options import EvaluateConfig
        from nibble.evaluation.printing import print_results
        from nibble.terminal import Console

        options = typed_as(EvaluateConfig, composed)
        print_results(evaluate_checkpoints(options), Console(), worst=options.worst)

    hydra_command.report_errors(task, config)


if __name__ == "__main__":
    hydra_command.run(CONF, "evaluate", main)

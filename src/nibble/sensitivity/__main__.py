"""Which layer needs how many bits? Ranks the layers of a float model, and assigns bits under a budget.

python -m nibble.sensitivity checkpoint=runs/digits_babble/2026-01-31_12-00-00_float_seed1
python -m nibble.sensitivity checkpoint=runs/float_run bits=[2,3,4,8] average_bits=4 name=mixed_for_digits
python -m nibble.sensitivity checkpoint=runs/float_run target_bytes=200000 method=fisher
"""

import hydra
from omegaconf import DictConfig

from nibble import cli

CONF = cli.conf_dir()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sensitivity")
def main(config: DictConfig) -> None:
    """Compose, analyse, print."""
    from nibble.config import SensitivityConfig, typed_as
    from nibble.sensitivity.analysis import analyse
    from nibble.sensitivity.printing import print_analysis
    from nibble.terminal import Console

    def task(composed: DictConfig) -> None:
        print_analysis(analyse(typed_as(SensitivityConfig, composed), CONF), Console())

    cli.report_errors(task, config)


if __name__ == "__main__":
    cli.run(CONF, "sensitivity", main)

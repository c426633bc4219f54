"""Which layer needs how many bits? Ranks the layers of a float model, and assigns bits under a budget.

python -m nibble.sensitivity checkpoint=runs/digits_babble/2026-01-31_12-00-00_float_seed1
python -m nibble.sensitivity checkpoint=runs/float_run bits=[2,3,4,8] average_bits=4 name=mixed_for_digits
python -m nibble.sensitivity checkpoint=runs/float_run target_bytes=200000 method=fisher
python -m nibble.sensitivity checkpoint=runs/float_run quant=analog noise=[0.5,1,2,4]       by type of layer
python -m nibble.sensitivity checkpoint=runs/sizes_run target_bytes=200000 max_rtf=0.01    the best of its systems
"""

import hydra
from omegaconf import DictConfig

from nibble import composition
from nibble.commands import hydra_command

CONF = composition.conf_dir()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sensitivity")
def main(config: DictConfig) -> None:
    """Compose, analyse, print."""
    from nibble.composition import typed_as
    from nibble.sensitivity.analog import noise_errors
    from nibble.sensitivity.analysis import analyse
    from nibble.sensitivity.options import SensitivityConfig
    from nibble.sensitivity.printing import print_analysis
    from nibble.sensitivity.systems import has_systems, search
    from nibble.terminal import Console

    def task(composed: DictConfig) -> None:
        options = typed_as(SensitivityConfig, composed)
        if options.noise:
            Console().print(noise_errors(options).table())
        elif has_systems(options):
            found = search(options)
            Console().print(found.table())
            print(found.verdict())
        else:
            print_analysis(analyse(options, CONF), Console())

    hydra_command.report_errors(task, config)


def run() -> None:
    """Run the command line."""
    hydra_command.run(CONF, "sensitivity", main)

"""Quantize a float model without training, and write the bundle.

python -m nibble.quantize checkpoint=runs/float_run quant=int4
python -m nibble.quantize checkpoint=runs/float_run quant=int3 rounding=gptq calibration_utterances=256
"""

from pathlib import Path
from statistics import median

import hydra
from omegaconf import DictConfig

from nibble import composition
from nibble.commands import hydra_command
from nibble.composition import typed_as
from nibble.post_training.options import QuantizeConfig

CONF = composition.conf_dir()


def quantize_checkpoint(options: QuantizeConfig) -> Path:
    """Round the float model that the options name, write its bundle, say how large it is, and return its folder.

    Raises:
        UserError: the checkpoint, the output folder or the speech does not allow it; the text says which.
    """
    from nibble.device import choose_device
    from nibble.evaluation.size import Size
    from nibble.post_training.quantization import quantize_without_training
    from nibble.runs.bundle import check_folder, write_bundle
    from nibble.runs.checkpoint import load_checkpoint
    from nibble.runs.loaded import float_parameters
    from nibble.runs.variant import Variant

    loaded = load_checkpoint(Path(str(options.checkpoint)), options.size)
    own = Variant(loaded.path, options.size, options.quant.name, options.rounding.value).bundle
    folder = Path(options.output) if options.output else own
    check_folder(folder)
    done = quantize_without_training(loaded, options, choose_device(options.hardware))
    model = done.loaded
    size_bytes = write_bundle(model, folder)
    if done.errors:
        shares = [error.gptq / error.nearest for error in done.errors.values() if error.nearest > 0]
        print(
            f"gptq on {done.utterances} utterances: {len(done.errors)} weights, squared error of their layers' outputs "
            f"{100 * median(shares or [1]):.0f} % of what rounding to nearest gives (median)"
        )
        print(f"rounded to nearest, since no product with them was seen: {', '.join(done.nearest) or 'none'}")
    ratio = Size(float_parameters(model.config, model.tokenizer.size), size_bytes, []).ratio
    print(f"{folder}: {size_bytes:,} bytes in all, {ratio:.2f}× smaller than float32")
    print(f"python evaluate.py checkpoint={folder}")
    return folder


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="quantize")
def main(config: DictConfig) -> None:
    """Compose, quantize, print."""
    hydra_command.report_errors(lambda composed: quantize_checkpoint(typed_as(QuantizeConfig, composed)), config)


def run() -> None:
    """Run the command line."""
    hydra_command.run(CONF, "quantize", main)

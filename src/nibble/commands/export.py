"""Export a trained model.

python -m nibble.export checkpoint=runs/int4_run                     a folder for sherpa-onnx, at four bits
python -m nibble.export checkpoint=runs/float_run quant=int4 parity=true
python -m nibble.export checkpoint=runs/int4_run target=bundle output=bundle
python -m nibble.export checkpoint=runs/sizes_run size=small quant=int8
"""

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from nibble import composition
from nibble.commands import hydra_command
from nibble.composition import typed_as
from nibble.export.options import ExportConfig, Target

if TYPE_CHECKING:  # imports torch: not before it is needed
    from nibble.export.parity import LayerParity
    from nibble.runs.loaded import Loaded
    from nibble.runs.variant import Variant

CONF = composition.conf_dir()


def export(options: ExportConfig) -> Path:
    """Export the model that the options name, say how large it is, and return its folder.

    Raises:
        UserError: the checkpoint, the encoding or the output folder does not allow it; the text says which.
    """
    from nibble.runs.bundle import bundle_bytes
    from nibble.runs.checkpoint import load_checkpoint, quantize
    from nibble.runs.loaded import float_parameters

    loaded = load_checkpoint(Path(str(options.checkpoint)), options.size)
    if options.quant is not None:
        loaded = quantize(loaded, options.quant)
    folder = (_export_bundle if options.target is Target.bundle else _export_sherpa)(options, loaded)
    size_bytes = bundle_bytes(folder)
    ratio = 4 * float_parameters(loaded.config, loaded.tokenizer.size) / size_bytes
    print(f"{folder}: {size_bytes:,} bytes in all, {ratio:.2f}× smaller than float32")
    print(f"python evaluate.py checkpoint={folder} backend={options.target.value}")
    return folder


def _export_bundle(options: ExportConfig, loaded: "Loaded") -> Path:
    from nibble.export.parity import compare_bundle
    from nibble.runs.bundle import read_bundle, write_bundle

    folder = Path(options.output) if options.output else _variant(options, loaded).bundle
    write_bundle(loaded, folder)
    if options.parity:
        _print_parity(compare_bundle(loaded, read_bundle(folder)), folder)
    return folder


def _export_sherpa(options: ExportConfig, loaded: "Loaded") -> Path:
    from nibble.packages import need

    need("onnx", "target=sherpa")
    if options.parity:
        need("onnxruntime", "parity=true")
    from nibble.export.onnx.graphs import choose_encoding
    from nibble.export.sherpa.folder import export_folder
    from nibble.runs.exported import INT4_OPSET, check_folder

    encoding = choose_encoding(loaded, options.encoding)
    folder = Path(options.output) if options.output else _variant(options, loaded).exported(encoding.value)
    check_folder(folder)
    exported, graphs = export_folder(folder, loaded, encoding, options.labels_per_frame, options.opset)
    if (least := exported.least_sherpa_onnx) is not None:
        older = "; opset=17 is for older ones" if exported.opset == INT4_OPSET else ""
        print(f"it needs sherpa-onnx {least} or later{older}")
    if options.parity:
        from nibble.export.onnx.parity import compare_graphs

        _print_parity(compare_graphs(loaded, graphs), folder)
    return folder


def _variant(options: ExportConfig, loaded: "Loaded") -> "Variant":
    """The model that is exported. `quant=` rounds a float model, or takes one of a run's trained precisions."""
    from nibble.post_training.options import Rounding
    from nibble.runs.method import Method
    from nibble.runs.variant import Variant

    chosen = options.size is not None or options.quant is not None
    rounded = options.quant is not None and loaded.method is Method.ptq
    return Variant(
        loaded.path, options.size, loaded.quant if chosen else None, Rounding.nearest.value if rounded else None
    )


def _print_parity(rows: "list[LayerParity]", folder: Path) -> None:
    from nibble.export.parity import parity_table
    from nibble.terminal import Console

    Console().print(parity_table(rows, f"{folder.name}: each layer with the input of torch's, against torch"))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def main(config: DictConfig) -> None:
    """Compose, export, print."""
    hydra_command.report_errors(lambda composed: export(typed_as(ExportConfig, composed)), config)


def run() -> None:
    """Run the command line."""
    hydra_command.run(CONF, "export", main)

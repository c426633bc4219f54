"""A trained model to what runs elsewhere.

python -m nibble.export checkpoint=runs/int4_run                     a folder for sherpa-onnx, at four bits
python -m nibble.export checkpoint=runs/float_run quant=int4 parity=true
python -m nibble.export checkpoint=runs/int4_run target=bundle output=bundle
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from nibble import cli
from nibble.config import ExportConfig, Target, Tokens, typed_export

if TYPE_CHECKING:  # imports torch: not before it is needed
    from nibble.export.loaded import Loaded

CONF = cli.conf_dir()
_FILE_WIDTH = 140  # of a table that goes to no terminal


def export(options: ExportConfig) -> Path:
    """Export the model that the options name, say how large it is, and return its folder.

    Raises:
        UserError: the checkpoint, the encoding or the output folder does not allow it; the text says which.
    """
    from nibble.export.bundle import export_bundle
    from nibble.export.checkpoint import load_checkpoint, quantize, run_folder
    from nibble.export.loaded import float_parameters

    loaded = load_checkpoint(Path(str(options.checkpoint)))
    if options.quant is not None:
        loaded = quantize(loaded, options.quant)
    run = run_folder(loaded.path)
    if options.target is Target.bundle:
        folder = Path(options.output) if options.output else run / "bundle"
        size_bytes, backend = export_bundle(loaded, folder), "bundle"
    else:
        folder, size_bytes = _export_sherpa(options, loaded, run)
        backend = "sherpa"
    ratio = 4 * float_parameters(loaded.config, loaded.tokenizer.size) / size_bytes
    print(f"{folder}: {size_bytes:,} bytes in all, {ratio:.2f}× smaller than float32")
    print(f"python evaluate.py checkpoint={folder} backend={backend}")
    return folder


def _export_sherpa(options: ExportConfig, loaded: "Loaded", run: Path) -> tuple[Path, int]:
    from nibble.export.packages import need

    for package in ("onnx", "onnxruntime") if options.parity else ("onnx",):
        need(package, "target=sherpa" + (" parity=true" if options.parity else ""))
    from nibble.export.onnx_export import choose_encoding, export_graphs
    from nibble.export.sherpa import check_folder, write_sherpa

    encoding = choose_encoding(loaded, options.encoding)
    folder = Path(options.output) if options.output else run / f"sherpa_{encoding.value}"
    check_folder(folder)
    characters = loaded.config.data.tokens is Tokens.char
    labels_per_frame = options.labels_per_frame or (2 if characters else 1)
    if labels_per_frame > 1:
        print(
            f"each frame is given {labels_per_frame} times, so that sherpa-onnx can emit as many labels in it; its "
            f"timestamps are {labels_per_frame} times too late, and right with labels_per_frame=1"
        )
    graphs = export_graphs(loaded, encoding, labels_per_frame)
    exported = write_sherpa(folder, loaded, {name: graph.model for name, graph in graphs.items()}, encoding)
    if options.parity:
        from rich.console import Console

        from nibble.export.parity import compare_layers, parity_table

        title = f"{folder.name}: each layer with torch's input, against torch"
        width = None if sys.stdout.isatty() else _FILE_WIDTH
        Console(highlight=False, width=width).print(parity_table(compare_layers(loaded, graphs), title))
    return folder, exported.size_bytes


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def main(config: DictConfig) -> None:
    """Compose, export, print."""
    cli.report_errors(lambda composed: export(typed_export(composed)), config)


if __name__ == "__main__":
    cli.run(CONF, "export", main)

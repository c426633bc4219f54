"""Exports a model as a folder that sherpa-onnx loads as it is."""

from collections.abc import Mapping
from pathlib import Path

from nibble.errors import UserError
from nibble.export.onnx.builder import MOST_BYTES, weight_bytes
from nibble.export.onnx.graphs import (
    ExportedGraph,
    default_labels_per_frame,
    default_opset,
    export_graphs,
    symbols,
)
from nibble.export.options import Encoding
from nibble.export.sherpa.readme import readme
from nibble.runs.exported import Exported, Form, write_sherpa
from nibble.runs.loaded import Loaded


def export_folder(
    folder: Path,
    loaded: Loaded,
    encoding: Encoding,
    labels_per_frame: int | None = None,
    opset: int | None = None,
) -> tuple[Exported, Mapping[str, ExportedGraph]]:
    """Write a model at the precision it is at: the folder, and the three graphs that are in it.

    Args:
        folder: where to; an older export there is replaced.
        loaded: the model.
        encoding: how weights and products are.
        labels_per_frame: 1 or 2; None: 2 for characters where that can be, else 1.
        opset: of ONNX; None for the one with 4-bit weights where there are any, else the oldest.

    Raises:
        UserError: sherpa-onnx could not run the model as it was trained, or the folder can't be written.
    """
    labels_per_frame = labels_per_frame or default_labels_per_frame(loaded)
    opset = opset or default_opset(encoding)
    graphs = export_graphs(loaded, encoding, labels_per_frame, opset)
    models = {name: graph.model for name, graph in graphs.items()}
    for name, model in models.items():
        if (found_bytes := weight_bytes(model)) > MOST_BYTES:
            raise UserError(
                f"{name}.onnx would hold {found_bytes:,} bytes of weights, and an ONNX file holds 2 GB; give "
                "encoding=w8a8, w4a8 or w4 with a quantized checkpoint"
            )
    size_bytes = sum(model.ByteSize() for model in models.values())
    form = Form(
        encoding=encoding,
        opset=opset,
        labels_per_frame=labels_per_frame,
        symbols=symbols(loaded, labels_per_frame),
        readme=readme(loaded, encoding, opset, labels_per_frame, size_bytes),
    )
    return write_sherpa(folder, loaded, models, form), graphs

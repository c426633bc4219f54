"""Exported folders, each made once."""

from functools import cache
from pathlib import Path

import pytest

from nibble.export.options import Encoding
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import Loaded

INTEGERS = {bits: [Rule(weight=WeightSpec(bits), activation=ActivationSpec())] for bits in (4, 8)}
BITS = {Encoding.float: None, Encoding.w8a8: 8, Encoding.w4a8: 4, Encoding.w4: 4}


@pytest.fixture(scope="session")
def fitted(fitted_run):
    """fitted(predictor, bits) -> the model that knows dev-tiny by heart, rounded to so many bits; None: in float.

    With a number of frames, one that streams in chunks of so many.
    """

    @cache
    def load(predictor: str, bits: int | None, chunk: int | None = None) -> Loaded:
        loaded = load_checkpoint(fitted_run(predictor, chunk))
        return loaded if bits is None else quantize(loaded, QuantConfig(f"int{bits}", INTEGERS[bits]))

    return load


@pytest.fixture(scope="session")
def exported(fitted, tmp_path_factory: pytest.TempPathFactory):
    """exported(predictor, encoding) -> the model and the three graphs, and their folder. Treat them as read-only.

    With a number of frames, of a model that streams in chunks of so many.
    """
    pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
    from nibble.export.onnx.graphs import export_graphs
    from nibble.runs.exported import write_sherpa

    @cache
    def export(predictor: str, encoding: Encoding, chunk: int | None = None):
        loaded = fitted(predictor, BITS[encoding], chunk)
        graphs = export_graphs(loaded, encoding, labels_per_frame=2)
        folder: Path = tmp_path_factory.mktemp(f"{predictor}_{encoding}") / "sherpa"
        write_sherpa(folder, loaded, {name: graph.model for name, graph in graphs.items()}, encoding)
        return loaded, graphs, folder

    return export

"""A trained transducer as three ONNX graphs in one encoding, with the metadata that sherpa-onnx reads."""

from typing import NamedTuple

import torch
from onnx import ModelProto, helper

from nibble.config import Encoding
from nibble.errors import UserError
from nibble.export.frozen import frozen_copy
from nibble.export.loaded import Loaded
from nibble.export.onnx_trace import Site, expand, stand_in, trace
from nibble.export.onnx_weights import NIBBLE_BITS
from nibble.export.sherpa_graphs import EncoderGraph, JoinerGraph, decoder_graph
from nibble.model.subsampling import MIN_FRAMES
from nibble.quant.convert import quantized_modules

_EXAMPLE_FRAMES = 16 * MIN_FRAMES


class ExportedGraph(NamedTuple):
    """One of the three files."""

    model: ModelProto
    sites: dict[str, Site]  # where the layers are in it


def export_graphs(loaded: Loaded, encoding: Encoding, labels_per_frame: int = 1) -> dict[str, ExportedGraph]:
    """`encoder`, `decoder` and `joiner` of a model at the precision it is at; the integers are those of its bundle."""
    model = frozen_copy(loaded.model)
    mel_bins, width = loaded.config.features.mel_bins, loaded.config.model.joiner_width
    decoder = decoder_graph(model)
    layers = stand_in(model)
    example = torch.randn(2, _EXAMPLE_FRAMES, mel_bins, generator=torch.Generator().manual_seed(0))
    traced = {
        "encoder": trace(
            EncoderGraph(model, labels_per_frame).eval(),
            {"x": example, "x_lens": torch.tensor([_EXAMPLE_FRAMES, _EXAMPLE_FRAMES - 9])},
            ["encoder_out", "encoder_out_lens"],
            {"x": ["N", "T"], "x_lens": ["N"], "encoder_out": ["N", "T'"], "encoder_out_lens": ["N"]},
        ),
        "decoder": trace(
            decoder.eval(),
            {"y": torch.zeros(2, decoder.context, dtype=torch.long)},
            ["decoder_out"],
            {"y": ["N"], "decoder_out": ["N"]},
        ),
        "joiner": trace(
            JoinerGraph(model.joiner).eval(),
            {"encoder_out": torch.zeros(2, width), "decoder_out": torch.zeros(2, width)},
            ["logit"],
            {"encoder_out": ["N"], "decoder_out": ["N"], "logit": ["N"]},
        ),
    }
    metadata = _metadata(loaded, decoder.context, encoding)
    graphs = {}
    for name, graph in traced.items():
        model_proto, sites = expand(graph, layers, encoding)
        helper.set_model_props(model_proto, metadata[name])
        graphs[name] = ExportedGraph(model_proto, sites)
    return graphs


def choose_encoding(loaded: Loaded, wanted: Encoding | None) -> Encoding:
    """The encoding to use: the one that is wanted, else what suits the bits of the weights.

    Raises:
        UserError: the weights do not fit it.
    """
    bits = [bits for module in quantized_modules(loaded.model).values() if (bits := module.weight_bits) is not None]
    if not bits:
        if wanted not in (None, Encoding.float):
            rounded = "int8" if wanted is Encoding.w8a8 else "int4"
            raise UserError(
                f"{loaded.path} has float weights, which encoding={wanted.value} would have to round; "
                f"say how with quant={rounded}, give a checkpoint of fewer bits, or encoding=float"
            )
        return Encoding.float
    fits = min(bits) <= NIBBLE_BITS
    if wanted in (Encoding.w4, Encoding.w4a8) and not fits:
        raise UserError(
            f"{loaded.path} has weights of {min(bits)} bits, which encoding={wanted.value} cannot hold in "
            f"{NIBBLE_BITS}; give encoding=w8a8, or a checkpoint of {NIBBLE_BITS} bits or fewer"
        )
    return wanted or (Encoding.w4a8 if fits else Encoding.w8a8)


def _metadata(loaded: Loaded, context: int, encoding: Encoding) -> dict[str, dict[str, str]]:
    """What sherpa-onnx reads: it ends the process where context_size or vocab_size is missing."""
    about = {"version": "1", "model_author": "nibble", "comment": f"{loaded.config.model.name} {encoding.value}"}
    return {
        "encoder": {"model_type": "conformer", **about},
        "decoder": {"context_size": str(context), "vocab_size": str(loaded.tokenizer.size), **about},
        "joiner": {"joiner_dim": str(loaded.config.model.joiner_width), **about},
    }

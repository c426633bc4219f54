"""The graphs of `nibble.export.sherpa.nemo_graphs`, traced, with the metadata that sherpa-onnx reads."""

import torch
from onnx import ModelProto
from torch import nn

from nibble.export.onnx.trace import stand_in, trace
from nibble.export.sherpa.nemo_graphs import NemoEncoderGraph, NemoJoinerGraph, nemo_decoder
from nibble.features.options import FeatureConfig, Normalization
from nibble.inference.onnx_nemo import NEMO_MODEL
from nibble.model.joiner import Joiner
from nibble.model.transducer import Transducer

_EXAMPLE_FRAMES = 112


def traced_nemo(
    model: Transducer, features: FeatureConfig
) -> tuple[dict[str, nn.Module], dict[str, tuple[ModelProto, dict[str, str]]]]:
    """The layers of a frozen model by name, and each graph with stand-ins for them, and its metadata."""
    assert isinstance(model.joiner, Joiner)
    width, decoder = model.joiner.encoder.out_features, nemo_decoder(model)
    encoder, joiner = NemoEncoderGraph(model), NemoJoinerGraph(model.joiner)
    layers = stand_in(model)
    graphs = {
        "encoder": trace(
            encoder.eval(),
            {
                "audio_signal": torch.randn(
                    2, features.mel_bins, _EXAMPLE_FRAMES, generator=torch.Generator().manual_seed(0)
                ),
                "length": torch.tensor([_EXAMPLE_FRAMES, _EXAMPLE_FRAMES - 9]),
            },
            ["outputs", "encoded_lengths"],
            {
                "audio_signal": {0: "N", 2: "T"},
                "length": {0: "N"},
                "outputs": {0: "N", 2: "T'"},
                "encoded_lengths": {0: "N"},
            },
        ),
        "decoder": trace(
            decoder.eval(),
            {
                "targets": torch.zeros(2, 1, dtype=torch.int32),
                "target_length": torch.ones(2, dtype=torch.int32),
                **{name: torch.zeros(decoder.state[0], 2, decoder.state[1]) for name in ("states", "cells")},
            },
            ["outputs", "prednet_lengths", "next_states", "next_cells"],
            {name: {0: "N"} for name in ("targets", "target_length", "outputs", "prednet_lengths")}
            | {name: {1: "N"} for name in ("states", "cells", "next_states", "next_cells")},
        ),
        "joiner": trace(
            joiner.eval(),
            {"encoder_outputs": torch.zeros(2, width, 1), "decoder_outputs": torch.zeros(2, width, 1)},
            ["logits"],
            {name: {0: "N"} for name in ("encoder_outputs", "decoder_outputs", "logits")},
        ),
    }
    said = {
        "model_type": NEMO_MODEL,
        "vocab_size": model.joiner.vocabulary_size - 1,  # NeMo does not count blank
        "normalize_type": "per_feature" if features.normalization is Normalization.utterance else "NA",
        "subsampling_factor": model.encoder.factor,
        "feat_dim": features.mel_bins,
        "pred_rnn_layers": decoder.state[0],
        "pred_hidden": decoder.state[1],
    }
    if model.durations:
        said["url"] = "tdt"  # where sherpa-onnx looks for this word
    metadata = {"encoder": {name: str(value) for name, value in said.items()}}
    return layers, {name: (graph, metadata.get(name, {})) for name, graph in graphs.items()}

"""A trained transducer as three ONNX graphs in one encoding, with the metadata that sherpa-onnx reads."""

from pathlib import Path
from typing import NamedTuple

import torch
from onnx import ModelProto, helper
from torch import nn

from nibble.config import Config
from nibble.conventions import BLANK
from nibble.data.options import Tokens
from nibble.errors import UserError
from nibble.export.onnx.nemo import traced_nemo
from nibble.export.onnx.products import packed
from nibble.export.onnx.trace import OLDEST_OPSET, Site, expand, stand_in, trace
from nibble.export.onnx.weights import NIBBLE_BITS
from nibble.export.options import Encoding
from nibble.export.sherpa.graphs import (
    EncoderGraph,
    JoinerGraph,
    ReplayDecoder,
    StatelessDecoder,
    StreamingEncoderGraph,
    decoder_graph,
)
from nibble.export.sherpa.pairs import MOST_LABELS, PairDecoder, PairJoiner, pair_symbols
from nibble.features.options import FeatureKind, Normalization
from nibble.model.joiner import Joiner
from nibble.model.predictor import StatelessPredictor
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.transducer import Transducer
from nibble.quant.convert import quantized_modules
from nibble.runs.exported import INT4_OPSET
from nibble.runs.frozen import frozen_copy
from nibble.runs.loaded import Loaded

_EXAMPLE_FRAMES = 112  # that the encoder is traced with


class ExportedGraph(NamedTuple):
    """One of the three files."""

    model: ModelProto
    sites: dict[str, Site]  # where the layers are in it


def export_graphs(
    loaded: Loaded, encoding: Encoding, labels_per_frame: int = 1, opset: int | None = None
) -> dict[str, ExportedGraph]:
    """`encoder`, `decoder` and `joiner` of a model at the precision it is at; the integers are those of its bundle.

    Args:
        loaded: the model.
        encoding: how weights and products are.
        labels_per_frame: that sherpa-onnx can emit in a frame of 40 ms; with 2 there are pairs of labels.
        opset: of ONNX; None for the one with 4-bit weights where there are any, else the oldest.

    Raises:
        UserError: the model hears features that sherpa-onnx would not compute, or its labels can't be paired.
    """
    _check_weights(loaded)
    model = frozen_copy(loaded.model)
    if not isinstance(model.joiner, Joiner):
        raise UserError(f"{loaded.path} has a CTC head, and this export is of transducers; give target=bundle")
    check_features(loaded.path, loaded.config)
    if labels_per_frame > 1 and (reason := why_no_pairs(loaded)) is not None:
        raise UserError(f"labels_per_frame={labels_per_frame}: {reason}; give labels_per_frame=1")
    opset = opset or default_opset(encoding)
    about = {"version": "1", "model_author": "nibble", "comment": f"{loaded.config.model.name} {encoding.value}"}
    layers, traced = _traced(loaded, model, labels_per_frame)
    graphs = {}
    for name, (graph, metadata) in traced.items():
        model_proto, sites = expand(graph, layers, encoding, opset)
        helper.set_model_props(model_proto, metadata | about)
        graphs[name] = ExportedGraph(model_proto, sites)
    return graphs


def _check_weights(loaded: Loaded) -> None:
    """Raise `UserError` for weights that no encoding can hold."""
    if any(layer.analog_spec for layer in quantized_modules(loaded.model).values()):
        raise UserError(
            f"{loaded.path} is at {loaded.quant}, which simulates analog memory and is no format of weights; "
            "give target=bundle, or a checkpoint of another precision"
        )


def _traced(
    loaded: Loaded, model: Transducer, labels_per_frame: int
) -> tuple[dict[str, nn.Module], dict[str, tuple[ModelProto, dict[str, str]]]]:
    """The layers of a frozen model by name, and each graph with stand-ins for them, and its metadata."""
    if loaded.config.features.kind is FeatureKind.nemo:
        return traced_nemo(model, loaded.config.features)
    assert isinstance(model.joiner, Joiner)
    width = loaded.config.model.joiner_width
    joiner: nn.Module = JoinerGraph(model.joiner)
    decoder: StatelessDecoder | ReplayDecoder | PairDecoder = decoder_graph(model)
    logits, beside = ["logit"], 0
    if labels_per_frame > 1:
        assert isinstance(model.predictor, StatelessPredictor)
        joiner = PairJoiner(model.predictor, model.joiner, width, loaded.tokenizer)
        decoder = PairDecoder(model.predictor, model.joiner)
        logits, beside = ["logit", "logit_of_labels"], decoder.context - 1
    layers = stand_in(model)
    graphs = {
        "encoder": _trace_encoder(model, loaded.config.features.mel_bins),
        "decoder": trace(
            decoder.eval(),
            {"y": torch.zeros(2, decoder.context, dtype=torch.long)},
            ["decoder_out"],
            {"y": {0: "N"}, "decoder_out": {0: "N"}},
        ),
        "joiner": trace(
            joiner.eval(),
            {"encoder_out": torch.zeros(2, width), "decoder_out": torch.zeros(2, width + beside)},
            logits,
            {name: {0: "N"} for name in ("encoder_out", "decoder_out", *logits)},
        ),
    }
    metadata = _metadata(model, width, decoder.context, len(symbols(loaded, labels_per_frame)))
    return layers, {name: (graph, metadata[name]) for name, graph in graphs.items()}


def default_opset(encoding: Encoding) -> int:
    """The opset with 4-bit weights where there are any, else the oldest."""
    return INT4_OPSET if packed(encoding) else OLDEST_OPSET


def why_no_pairs(loaded: Loaded) -> str | None:
    """Why an export can't have pairs of labels; None if it can. See `nibble.export.sherpa.pairs`."""
    if loaded.config.features.kind is FeatureKind.nemo:
        return "sherpa-onnx finds several labels a frame by itself in models that hear NeMo's features"
    if not isinstance(loaded.model.predictor, StatelessPredictor):
        return "sherpa-onnx gets two labels a frame from models with predictor=stateless alone"
    if loaded.tokenizer.size > MOST_LABELS:
        return f"the model has {loaded.tokenizer.size:,} labels, and there are pairs of {MOST_LABELS} at most"
    return None


def default_labels_per_frame(loaded: Loaded) -> int:
    """2 for characters, which can come two in a frame, where pairs are possible; otherwise 1."""
    return 2 if loaded.config.data.tokens is Tokens.char and why_no_pairs(loaded) is None else 1


def symbols(loaded: Loaded, labels_per_frame: int) -> list[str]:
    """The symbols that an export emits, in the order of ids."""
    labels = loaded.tokenizer.pieces(range(loaded.tokenizer.size))
    if loaded.config.features.kind is FeatureKind.nemo:
        return [*labels[BLANK + 1 :], labels[BLANK]]
    return labels + pair_symbols(loaded.tokenizer) if labels_per_frame > 1 else labels


def check_features(path: Path, config: Config) -> None:
    """Raise `UserError` for features that sherpa-onnx does not compute, for an icefall or a NeMo transducer."""
    features = config.features
    if config.model.durations and features.kind is not FeatureKind.nemo:
        raise UserError(
            f"{path} predicts durations (model.max_duration_frames={config.model.max_duration_frames}), which "
            "sherpa-onnx knows of NeMo transducers alone; train with features=nemo, or export it with target=bundle"
        )
    if features.kind is FeatureKind.nemo:
        if config.model.chunk_frames is not None:
            raise UserError(
                f"{path} streams and hears NeMo's features, and sherpa-onnx streams with Kaldi's; train a model that "
                "streams with features=fbank, or export it with target=bundle"
            )
        return
    if features.kind is not FeatureKind.kaldi or features.normalization is Normalization.utterance:
        raise UserError(
            f"{path} was trained with features.kind={features.kind.value} and features.normalization="
            f"{features.normalization.value}, and sherpa-onnx gives such a folder Kaldi's features, not normalized; "
            "export it with target=bundle"
        )


def _trace_encoder(model: Transducer, mel_bins: int) -> ModelProto:
    encoder, random = model.encoder, torch.Generator().manual_seed(0)
    if not isinstance(encoder, StreamingEncoder):
        return trace(
            EncoderGraph(model).eval(),
            {
                "x": torch.randn(2, _EXAMPLE_FRAMES, mel_bins, generator=random),
                "x_lens": torch.tensor([_EXAMPLE_FRAMES, _EXAMPLE_FRAMES - 9]),
            },
            ["encoder_out", "encoder_out_lens"],
            {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}, "encoder_out": {0: "N", 1: "T'"}, "encoder_out_lens": {0: "N"}},
        )
    attention, convolution = (torch.zeros(shape) for shape in _cache_shapes(encoder, batch=2))
    return trace(
        StreamingEncoderGraph(model).eval(),
        {
            "x": torch.randn(2, encoder.chunks.feature_frames(), mel_bins, generator=random),
            "cached_attn": attention,
            "cached_conv": convolution,
            "processed_lens": torch.tensor([0, encoder.factor * encoder.chunks.frames]),
        },
        ["encoder_out", "new_cached_attn", "new_cached_conv"],
        {name: {0: "N"} for name in ("x", "processed_lens", "encoder_out")}
        | {name: {2: "N"} for name in ("cached_attn", "cached_conv", "new_cached_attn", "new_cached_conv")},
    )


def choose_encoding(loaded: Loaded, wanted: Encoding | None) -> Encoding:
    """The encoding to use: the requested one, or one that fits the bits of the weights.

    Raises:
        UserError: the weights do not fit it.
    """
    _check_weights(loaded)
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
            f"{loaded.path} is at {loaded.quant}, with weights of {min(bits)} bits, which encoding={wanted.value} "
            f"cannot hold in {NIBBLE_BITS}; give encoding=w8a8, or a checkpoint of {NIBBLE_BITS} bits or fewer"
        )
    return wanted or (Encoding.w4a8 if fits else Encoding.w8a8)


def _metadata(model: Transducer, joiner_width: int, context: int, tokens: int) -> dict[str, dict[str, str]]:
    """The metadata that sherpa-onnx reads; it ends the process if an entry is missing."""
    streaming = _streaming_metadata(model.encoder) if isinstance(model.encoder, StreamingEncoder) else {}
    return {
        "encoder": {"model_type": "conformer", **streaming},
        "decoder": {"context_size": str(context), "vocab_size": str(tokens)},
        "joiner": {"joiner_dim": str(joiner_width)},
    }


def _streaming_metadata(encoder: StreamingEncoder) -> dict[str, str]:
    """What sherpa-onnx feeds, and what caches it makes: (layers, left_context, N, encoder_dim), and
    (layers, cnn_module_kernel - 1, N, encoder_dim).
    """
    (layers, left, _, width), (_, convolution, _, _) = _cache_shapes(encoder, batch=1)
    values = {
        "num_encoder_layers": layers,
        "T": encoder.chunks.feature_frames(),
        "decode_chunk_len": encoder.factor * encoder.chunks.frames,
        "subsampling_factor": encoder.factor,  # for `nibble.export.onnx_transducer`
        "left_context": left,
        "encoder_dim": width,
        "cnn_module_kernel": convolution + 1,
        "pad_length": encoder.chunks.look_ahead,
    }
    return {name: str(value) for name, value in values.items()}


def _cache_shapes(encoder: StreamingEncoder, batch: int) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Of cached_attn and cached_conv."""
    layers, width = len(encoder.blocks), 2 * encoder.width
    return (layers, encoder.left, batch, width), (layers, (encoder.kernel - 1) // 2, batch, width)

"""The weights of NeMo's Conformer and FastConformer transducers and CTC networks, under NeMo's names, to ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureKind, Normalization
from nibble.imports.conversion import Conversion, blank_first, frequency_outer, relative_attention
from nibble.imports.description import Described
from nibble.model.options import Activation, ConvolutionNorm, ModelConfig, Predictor, SubsamplingKind

UNUSED = ("preprocessor.", "ctc_decoder.")  # the window and filters of the features, a hybrid's second head


@dataclass(frozen=True)
class NemoTransducer:
    """What it says of predictor and joiner."""

    predictor_width: int  # of embeddings too
    predictor_layers: int
    joiner_width: int
    activation: Activation
    zero_start: bool  # nothing is embedded at the start, so the row of blank is zero
    max_duration_frames: int = 0  # of a token-and-duration transducer (TDT)

    @property
    def options(self) -> dict[str, Any]:
        """Those of `ModelConfig`."""
        return {
            "predictor": Predictor.lstm,
            "predictor_width": self.predictor_width,
            "predictor_layers": self.predictor_layers,
            "embedding_width": self.predictor_width,
            "joiner_width": self.joiner_width,
            "joiner_activation": self.activation,
            "max_duration_frames": self.max_duration_frames,
        }


@dataclass(frozen=True)
class NemoModel:
    """What a checkpoint's configuration says, as far as weights depend on it."""

    name: str
    width: int
    layers: int
    heads: int
    inner_width: int  # of the feed-forward modules
    kernel: int
    depthwise: bool  # dw_striding; else striding
    factor: int
    channels: int
    layer_norm: bool  # in the convolution module
    scaled: bool  # the subsampling's output is multiplied by the square root of the width
    mel_bins: int
    by_utterance: bool  # features are normalised over the utterance
    labels: int  # with blank, which is the last one
    transducer: NemoTransducer | None  # None: a CTC network

    @property
    def model(self) -> ModelConfig:
        """Our network with these layers."""
        if self.inner_width % self.width:
            raise UserError(
                f"feed-forward modules of {self.inner_width} are no multiple of the width {self.width}, and cannot be "
                "imported"
            )
        return ModelConfig(
            name=self.name,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            feed_forward_multiplier=self.inner_width // self.width,
            subsampling=SubsamplingKind.depthwise if self.depthwise else SubsamplingKind.padded,
            subsampling_factor=self.factor,
            subsampling_channels=self.channels,
            kernel=self.kernel,
            convolution_norm=ConvolutionNorm.layer if self.layer_norm else ConvolutionNorm.batch,
            **({"predictor": Predictor.none} if self.transducer is None else self.transducer.options),
        )

    @property
    def features(self) -> FeatureConfig:
        """What it hears."""
        normalization = Normalization.utterance if self.by_utterance else Normalization.none
        return FeatureConfig(FeatureKind.nemo, self.mel_bins, normalization)


def convert(path: Path, said: NemoModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of our network.

    Args:
        path: of the checkpoint, for messages.
        said: its shape.
        tensors: its weights under NeMo's names; emptied.

    Raises:
        UserError: a tensor is missing, has no place here, or has another shape than was said.
    """
    if said.layers > len(tensors):
        raise UserError(f"{path} says that it has {said.layers} layers, and holds {len(tensors)} tensors")
    conversion = Conversion(path, tensors)
    _subsampling(conversion, said)
    for number in range(said.layers):
        _block(conversion, f"encoder.layers.{number}", f"encoder.blocks.{number}")
    if not said.layer_norm and "encoder.blocks.0.convolution.batch_norm.running_mean" not in conversion.state:
        raise UserError(f"{path}: conv_norm_type=batch_norm has no running_mean in encoder.layers.0.conv.batch_norm")
    if said.transducer is None:
        _head(conversion, "decoder.decoder_layers.0", said.labels)
    else:
        _predictor(conversion, said.transducer)
        _joiner(conversion, said.labels)
    conversion.finished(said.model, said.features, said.labels, UNUSED)
    return conversion.state


def _subsampling(conversion: Conversion, said: NemoModel) -> None:
    source, target = "encoder.pre_encode", "encoder.subsampling"
    conversion.convolution(f"{source}.conv.0", f"{target}.conv1")
    if said.depthwise:
        for stage in range(said.factor.bit_length() - 2):  # each of three entries: depthwise, pointwise, ReLU
            conversion.convolution(f"{source}.conv.{2 + 3 * stage}", f"{target}.separable.{stage}.depthwise")
            conversion.linear(f"{source}.conv.{3 + 3 * stage}", f"{target}.separable.{stage}.pointwise")
    else:
        conversion.convolution(f"{source}.conv.2", f"{target}.conv2")
    conversion.linear(f"{source}.out", f"{target}.output")
    scale = said.width**0.5 if said.scaled else 1.0
    output = f"{target}.output"
    weight = frequency_outer(conversion.state[f"{output}.weight"], said.channels)
    conversion.state[f"{output}.weight"] = weight * scale
    conversion.state[f"{output}.bias"] = conversion.state[f"{output}.bias"] * scale


def _block(conversion: Conversion, source: str, target: str) -> None:
    for number in (1, 2):
        conversion.norm(f"{source}.norm_feed_forward{number}", f"{target}.feed_forward{number}.norm")
        conversion.linear(f"{source}.feed_forward{number}.linear1", f"{target}.feed_forward{number}.expansion")
        conversion.linear(f"{source}.feed_forward{number}.linear2", f"{target}.feed_forward{number}.projection")
    attention = f"{target}.attention"
    conversion.norm(f"{source}.norm_self_att", f"{attention}.norm")
    relative_attention(conversion, f"{source}.self_attn", attention)
    convolution = f"{target}.convolution"
    conversion.norm(f"{source}.norm_conv", f"{convolution}.norm")
    conversion.linear(f"{source}.conv.pointwise_conv1", f"{convolution}.pointwise1")
    conversion.convolution(f"{source}.conv.depthwise_conv", f"{convolution}.depthwise")
    batch = f"{source}.conv.batch_norm.running_mean" in conversion  # that is its name whatever the norm
    conversion.norm(f"{source}.conv.batch_norm", f"{convolution}.{'batch_norm' if batch else 'layer_norm'}")
    conversion.linear(f"{source}.conv.pointwise_conv2", f"{convolution}.pointwise2")
    conversion.norm(f"{source}.norm_out", f"{target}.norm")


def _predictor(conversion: Conversion, said: NemoTransducer) -> None:
    embedding = blank_first(conversion.take("decoder.prediction.embed.weight"))
    if said.zero_start:
        embedding[0] = 0.0
    conversion.state["predictor.embedding.weight"] = embedding
    for layer in range(said.predictor_layers):
        target = "predictor.lstm" if layer == 0 else f"predictor.upper.{layer - 1}"
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            source = f"decoder.prediction.dec_rnn.lstm.{name}_l{layer}"
            conversion.state[f"{target}.{name}_l0"] = conversion.take(source)


def _joiner(conversion: Conversion, labels: int) -> None:
    conversion.linear("joint.enc", "joiner.encoder")
    conversion.linear("joint.pred", "joiner.predictor")
    both = conversion.state.pop("joiner.predictor.bias") + conversion.state["joiner.encoder.bias"]
    conversion.state["joiner.encoder.bias"] = both  # the two sides are added, so one bias is enough
    with_dropout = "joint.joint_net.2.weight" in conversion
    _head(conversion, f"joint.joint_net.{2 if with_dropout else 1}", labels)


def _head(conversion: Conversion, source: str, labels: int) -> None:
    """What gives the logits of labels, and behind them those of durations if there are any."""
    conversion.linear(source, "joiner.output")
    for name in ("joiner.output.weight", "joiner.output.bias"):
        rows = conversion.state[name]
        conversion.state[name] = torch.cat((blank_first(rows[:labels]), rows[labels:]))


def untied(tensors: dict[str, Tensor], layers: int) -> None:
    """Repeat position biases that all layers share (`untie_biases: false`) in each of them, in place."""
    for name in ("pos_bias_u", "pos_bias_v"):
        shared = tensors.pop(f"encoder.{name}", None)
        for layer in range(min(layers, len(tensors))):
            if shared is not None:
                tensors[f"encoder.layers.{layer}.self_attn.{name}"] = torch.clone(shared)


def max_duration(said: Described, name: str, durations: object) -> int:
    """The most frames that a label of a token-and-duration transducer lasts, 0 of a transducer without durations.

    Raises:
        UserError: the durations are not 0, 1, 2 and so on, each once.
    """
    if durations in (None, [], ()):
        return 0
    if not isinstance(durations, (list, tuple)) or len(durations) < 2 or list(durations) != list(range(len(durations))):
        raise said.refused(name, durations, "durations of 0, 1, 2 and so on, each once, can be")
    return len(durations) - 1

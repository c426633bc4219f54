"""The weights of ESPnet's Conformers under their names, to ours."""

from pathlib import Path

import torch
from torch import Tensor

from nibble.errors import UserError
from nibble.features.nemo import mel_filters
from nibble.features.options import FeatureConfig, Normalization
from nibble.imports.conversion import Conversion, frequency_outer, relative_attention
from nibble.model.options import ModelConfig, Predictor

_FILTERS = "frontend.logmel.melmat"
_BATCH_NORM_EPSILON = 1e-5  # what our normalisation adds to the variance, and ESPnet's does not


def convert(
    path: Path, tensors: dict[str, Tensor], model: ModelConfig, features: FeatureConfig, labels: int
) -> dict[str, Tensor]:
    """The state of our network.

    Args:
        path: of the package, for messages.
        tensors: its weights under ESPnet's names.
        model: our network with the same layers.
        features: what it hears.
        labels: V, with blank, which is the first one.

    Raises:
        UserError: a tensor is missing, has no place here, or has another shape than was said.
    """
    if model.layers > len(tensors):
        raise UserError(f"{path} says that it has {model.layers} layers, and holds {len(tensors)} tensors")
    conversion = Conversion(path, tensors)
    _features(path, conversion, features)
    _subsampling(conversion, model.width)
    for number in range(model.layers):
        _block(conversion, f"encoder.encoders.{number}", f"encoder.blocks.{number}")
    conversion.norm("encoder.after_norm", "encoder.final_norm")
    if model.predictor is Predictor.none:
        conversion.linear("ctc.ctc_lo", "joiner.output")
        unused = ("decoder.",)  # attention decoder of a hybrid
    else:
        _transducer(conversion, model.predictor_layers)
        unused = ("ctc.",)  # a second head, of training
    conversion.finished(model, features, labels, unused)
    return conversion.state


def _features(path: Path, conversion: Conversion, features: FeatureConfig) -> None:
    """The statistics of the training speech; the mel filters are compared with ours."""
    if _FILTERS in conversion:
        filters, bins = conversion.take(_FILTERS), features.mel_bins
        if filters.shape != (257, bins) or not torch.allclose(filters.float(), mel_filters(bins), atol=1e-6):
            raise UserError(f"{path}: {_FILTERS} are not Slaney's filters from 0 to 8 kHz, and cannot be imported")
    if features.normalization is not Normalization.corpus:
        return
    mean, deviation = conversion.take("normalize.mean"), conversion.take("normalize.std")
    if not (deviation > 0).all():
        raise UserError(f"{path}: normalize.std has a deviation that is not above 0, and cannot be imported")
    target = "encoder.normalization"
    conversion.state[f"{target}.running_mean"] = mean
    conversion.state[f"{target}.running_var"] = (deviation.double().square() - _BATCH_NORM_EPSILON).float()
    conversion.state[f"{target}.num_batches_tracked"] = torch.tensor(0)


def _subsampling(conversion: Conversion, width: int) -> None:
    source, target = "encoder.embed", "encoder.subsampling"
    conversion.convolution(f"{source}.conv.0", f"{target}.conv1")
    conversion.convolution(f"{source}.conv.2", f"{target}.conv2")
    output = f"{target}.output"
    conversion.linear(f"{source}.out.0", output)
    scale = width**0.5  # the positions' module multiplies by it
    conversion.state[f"{output}.weight"] = frequency_outer(conversion.state[f"{output}.weight"], width) * scale
    conversion.state[f"{output}.bias"] = conversion.state[f"{output}.bias"] * scale


def _block(conversion: Conversion, source: str, target: str) -> None:
    for theirs, norm, ours in (
        ("feed_forward_macaron", "norm_ff_macaron", "feed_forward1"),
        ("feed_forward", "norm_ff", "feed_forward2"),
    ):
        conversion.norm(f"{source}.{norm}", f"{target}.{ours}.norm")
        conversion.linear(f"{source}.{theirs}.w_1", f"{target}.{ours}.expansion")
        conversion.linear(f"{source}.{theirs}.w_2", f"{target}.{ours}.projection")
    attention = f"{target}.attention"
    conversion.norm(f"{source}.norm_mha", f"{attention}.norm")
    relative_attention(conversion, f"{source}.self_attn", attention)
    convolution = f"{target}.convolution"
    conversion.norm(f"{source}.norm_conv", f"{convolution}.norm")
    conversion.linear(f"{source}.conv_module.pointwise_conv1", f"{convolution}.pointwise1")
    conversion.convolution(f"{source}.conv_module.depthwise_conv", f"{convolution}.depthwise")
    conversion.norm(f"{source}.conv_module.norm", f"{convolution}.batch_norm")
    conversion.linear(f"{source}.conv_module.pointwise_conv2", f"{convolution}.pointwise2")
    conversion.norm(f"{source}.norm_final", f"{target}.norm")


def _transducer(conversion: Conversion, layers: int) -> None:
    """Predictor, each of whose layers is an LSTM of one layer, and joiner."""
    conversion.state["predictor.embedding.weight"] = conversion.take("decoder.embed.weight")
    for layer in range(layers):
        target = "predictor.lstm" if layer == 0 else f"predictor.upper.{layer - 1}"
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            conversion.state[f"{target}.{name}"] = conversion.take(f"decoder.decoder.{layer}.{name}")
    conversion.linear("joint_network.lin_enc", "joiner.encoder")
    conversion.state["joiner.predictor.weight"] = conversion.take("joint_network.lin_dec.weight")
    conversion.linear("joint_network.lin_out", "joiner.output")

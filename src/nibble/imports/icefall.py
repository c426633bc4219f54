"""icefall's `transducer_stateless`, `transducer_stateless2` and `transducer_stateless_multi_datasets`.

A folder with pretrained.pt and bpe.model or tokens.txt, below it or in exp/ and data/lang_bpe_500/, as on the Hub.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.features.options import FeatureConfig, Normalization
from nibble.imports.conversion import Conversion, frequency_outer
from nibble.imports.importer import Foreign
from nibble.imports.licence import licence_of
from nibble.imports.pieces import of_pieces, with_blank_at_0
from nibble.model.options import ConvolutionNorm, ModelConfig, Predictor
from nibble.runs.checkpoint_file import read_saved

MEL_BINS = 80
_STATELESS = "transducer_stateless, transducer_stateless2 and transducer_stateless_multi_datasets can be"
_REFUSED = {  # a part of a tensor's name -> whose it is
    "encoder.encoders.": "a Zipformer, whose blocks run at several frame rates; train a Conformer on its transcripts",
    "encoder.encoder.layers.0.feed_forward.0.weight_scale": "the reworked Conformer of pruned_transducer_stateless2 "
    "and later, which has no norms inside a block",
    "joiner.inner_linear.weight": "pruned_transducer_stateless, whose joiner has two layers",
    "decoder.rnn.weight_ih_l0": "the LSTM transducer of icefall",
    "encoder.encoder.layers.0.conv_module.norm.running_mean": "a Conformer with feature batch norm",
}


class Icefall:
    """The `Importer` of folders with pretrained.pt."""

    def recognises(self, path: Path) -> bool:
        """A folder with that file, or the file itself."""
        return _weights_file(path) is not None

    def describe(self, path: Path) -> Foreign:
        """As `Importer` says; icefall keeps no description, so the shapes of the weights are read."""
        file = _weights_file(path)
        assert file is not None
        root = file.parent.parent if file.parent.name == "exp" else file.parent
        tensors = _tensors(file)
        for name, whose in _REFUSED.items():
            if any(one.startswith(name) for one in tensors):
                raise UserError(f"{file} holds {name}: it is {whose}, and cannot be imported; {_STATELESS}")
        model = _model(file, tensors, root.resolve().name)
        tokenizer = _tokenizer(root, file)
        labels = len(_tensor(file, tensors, "joiner.output_linear.weight"))
        if tokenizer.size != labels:
            raise UserError(f"{root}: its tokenizer has {tokenizer.size} labels, and its joiner {labels}")
        features = FeatureConfig(mel_bins=MEL_BINS, normalization=Normalization.none)

        def weights() -> dict[str, Tensor]:
            return _convert(file, _tensors(file), model, features, labels)

        origin = f"{root.resolve().name}, an icefall transducer_stateless; {licence_of(root)}"
        return Foreign(path, "icefall transducer_stateless", model, features, tokenizer, origin, weights)


def _weights_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name == "pretrained.pt" else None
    return next((path / name for name in ("pretrained.pt", "exp/pretrained.pt") if (path / name).is_file()), None)


def _tensors(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as opened:
        saved = read_saved(opened, str(file))
    tensors = saved.get("model") if isinstance(saved, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise UserError(f"{file} has no weights under 'model', as icefall's export.py writes them")
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _tensor(file: Path, tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise UserError(f"{file} has no {name}: it is no model of this kind; {_STATELESS}")
    return tensors[name]


def _model(file: Path, tensors: dict[str, Tensor], name: str) -> ModelConfig:
    """The sizes that the weights have."""
    numbers = [match[1] for one in tensors if (match := re.match(r"encoder\.encoder\.layers\.(\d{1,4})\.", one))]
    layers = 1 + max(map(int, numbers), default=-1)
    if layers < 1:
        raise UserError(f"{file} has no encoder.encoder.layers: it is no model of this kind; {_STATELESS}")

    def shape(name: str, dimensions: int) -> torch.Size:
        found = _tensor(file, tensors, name).shape
        if len(found) != dimensions or not found.numel():
            raise UserError(f"{file}: {name} has shape {tuple(found)}, and should have {dimensions} dimensions")
        return found

    first = "encoder.encoder.layers.0"
    inner, width = shape(f"{first}.feed_forward_macaron.0.weight", 2)
    labels, embedding_width = shape("decoder.embedding.weight", 2)
    del labels
    context = shape("decoder.conv.weight", 3)[2] if "decoder.conv.weight" in tensors else 1
    if inner % width:
        raise UserError(f"{file}: feed-forward modules of {inner} are no multiple of {width}, and cannot be imported")
    return ModelConfig(
        name=name,
        width=width,
        layers=layers,
        heads=shape(f"{first}.self_attn.pos_bias_u", 2)[0],
        feed_forward_multiplier=inner // width,
        subsampling_channels=shape("encoder.encoder_embed.conv.0.weight", 4)[0],
        kernel=shape(f"{first}.conv_module.depthwise_conv.weight", 3)[2],
        convolution_norm=ConvolutionNorm.layer,
        final_norm=True,
        predictor=Predictor.stateless_linear,
        predictor_width=embedding_width,
        embedding_width=embedding_width,
        context=context,
        joiner_width=shape("joiner.output_linear.weight", 2)[1],
    )


def _convert(
    file: Path, tensors: dict[str, Tensor], model: ModelConfig, features: FeatureConfig, labels: int
) -> dict[str, Tensor]:
    conversion = Conversion(file, tensors)
    embed, subsampling = "encoder.encoder_embed", "encoder.subsampling"
    conversion.convolution(f"{embed}.conv.0", f"{subsampling}.conv1")
    conversion.convolution(f"{embed}.conv.2", f"{subsampling}.conv2")
    conversion.linear(f"{embed}.out", f"{subsampling}.output")
    state, scale = conversion.state, model.width**0.5  # the positions' module multiplies by it
    channels = model.subsampling_channels or model.width
    state[f"{subsampling}.output.weight"] = frequency_outer(state[f"{subsampling}.output.weight"], channels) * scale
    state[f"{subsampling}.output.bias"] = state[f"{subsampling}.output.bias"] * scale
    for number in range(model.layers):
        _block(conversion, f"encoder.encoder.layers.{number}", f"encoder.blocks.{number}")
    conversion.norm("encoder.after_norm", "encoder.final_norm")
    conversion.linear("encoder.encoder_output_layer.1", "joiner.encoder")  # it stands right before the sum
    _predictor(file, conversion, model)
    conversion.linear("joiner.output_linear", "joiner.output")
    conversion.finished(model, features, labels, unused=())
    return conversion.state


def _block(conversion: Conversion, source: str, target: str) -> None:
    for theirs, ours in (("feed_forward_macaron", "feed_forward1"), ("feed_forward", "feed_forward2")):
        norm = "norm_ff_macaron" if ours == "feed_forward1" else "norm_ff"
        conversion.norm(f"{source}.{norm}", f"{target}.{ours}.norm")
        conversion.linear(f"{source}.{theirs}.0", f"{target}.{ours}.expansion")
        conversion.linear(f"{source}.{theirs}.3", f"{target}.{ours}.projection")
    attention, state = f"{target}.attention", conversion.state
    conversion.norm(f"{source}.norm_mha", f"{attention}.norm")
    for kind in ("weight", "bias"):
        parts = conversion.take(f"{source}.self_attn.in_proj.{kind}").chunk(3)
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            state[f"{attention}.{name}.{kind}"] = part
    conversion.linear(f"{source}.self_attn.out_proj", f"{attention}.output")
    state[f"{attention}.position.weight"] = conversion.take(f"{source}.self_attn.linear_pos.weight")
    for theirs, ours in (("u", "content_bias"), ("v", "position_bias")):
        state[f"{attention}.{ours}"] = conversion.take(f"{source}.self_attn.pos_bias_{theirs}").flatten()
    convolution = f"{target}.convolution"
    conversion.norm(f"{source}.norm_conv", f"{convolution}.norm")
    conversion.linear(f"{source}.conv_module.pointwise_conv1", f"{convolution}.pointwise1")
    conversion.convolution(f"{source}.conv_module.depthwise_conv", f"{convolution}.depthwise")
    conversion.norm(f"{source}.conv_module.norm", f"{convolution}.layer_norm")
    conversion.linear(f"{source}.conv_module.pointwise_conv2", f"{convolution}.pointwise2")
    conversion.norm(f"{source}.norm_final", f"{target}.norm")


def _predictor(file: Path, conversion: Conversion, model: ModelConfig) -> None:
    """A filter of each channel over the last labels is a Linear of diagonal matrices side by side."""
    embedding = conversion.take("decoder.embedding.weight")
    if model.context > 1 and embedding[0].abs().max() > 0:
        raise UserError(
            f"{file}: decoder.embedding.weight has a row of blank that is not zero, and icefall puts zeros before the "
            "first label; it cannot be imported"
        )
    state, width = conversion.state, model.predictor_width
    state["predictor.embedding.weight"] = embedding
    taps = conversion.take("decoder.conv.weight")[:, 0] if model.context > 1 else torch.ones(width, 1)  # (P, context)
    state["predictor.projection.weight"] = torch.cat([torch.diag(tap) for tap in taps.unbind(1)], dim=1)
    state["predictor.projection.bias"] = torch.zeros(width)
    state["joiner.predictor.weight"] = torch.eye(width)  # the sides are added as they are


def _tokenizer(root: Path, file: Path) -> Tokenizer:
    places = [root, file.parent, *sorted((root / "data").glob("lang_*"))]
    for place in places:
        if (place / "bpe.model").is_file():
            return with_blank_at_0((place / "bpe.model").read_bytes(), str(place / "bpe.model"))
    for place in places:
        if (place / "tokens.txt").is_file():
            return _from_tokens(place / "tokens.txt")
    raise UserError(f"{root} has neither bpe.model nor tokens.txt, there or in data/lang_*; copy them there")


def _from_tokens(file: Path) -> Tokenizer:
    """ "symbol id" a line; symbols for disambiguation (#0) are left out."""
    try:
        pairs = [line.rsplit(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        by_id = {int(number): symbol for symbol, number in pairs if not symbol.startswith("#")}
    except (ValueError, OSError) as error:
        raise UserError(f"{file} is no list of symbols and numbers: {error}") from error
    if sorted(by_id) != list(range(len(by_id))):
        raise UserError(f"{file} does not number its symbols from 0 on")
    return of_pieces([by_id[number] for number in range(len(by_id))], "<unk>")

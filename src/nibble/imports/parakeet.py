"""Hugging Face folders of Parakeet RNN-T, TDT and CTC (transformers): FastConformers that began in NeMo.

The layers are NeMo's under other names, so tensors are renamed and then converted as NeMo's.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.imports.description import Described
from nibble.imports.foundation import FOUNDATIONS
from nibble.imports.hugging_face import model_type, read_json, renamed, tensors_of
from nibble.imports.importer import Foreign
from nibble.imports.licence import licence_of
from nibble.imports.nemo_layers import NemoModel, NemoTransducer, convert, max_duration
from nibble.imports.pieces import of_pieces, with_blank_first
from nibble.model.options import Activation

_RENAMED = (  # transformers' names to NeMo's, one after the other
    (r"^encoder\.subsampling\.layers\.", "encoder.pre_encode.conv."),
    (r"^encoder\.subsampling\.linear\.", "encoder.pre_encode.out."),
    (r"\.self_attn\.([qkv])_proj\.", r".self_attn.linear_\1."),
    (r"\.self_attn\.o_proj\.", ".self_attn.linear_out."),
    (r"\.self_attn\.relative_k_proj\.", ".self_attn.linear_pos."),
    (r"\.self_attn\.bias_([uv])$", r".self_attn.pos_bias_\1"),
    (r"\.conv\.norm\.", ".conv.batch_norm."),
    (r"^encoder_projector\.", "joint.enc."),
    (r"^decoder\.embedding\.", "decoder.prediction.embed."),
    (r"^decoder\.lstm\.", "decoder.prediction.dec_rnn.lstm."),
    (r"^decoder\.decoder_projector\.", "joint.pred."),
    (r"^joint\.head\.", "joint.joint_net.2."),
    (r"^ctc_head\.", "decoder.decoder_layers.0."),
)
_UNUSED = re.compile(r"^encoder\.encode_positions\.")  # sines and cosines
_CLASSES = {"parakeet_rnnt": "ParakeetForRNNT", "parakeet_tdt": "ParakeetForTDT", "parakeet_ctc": "ParakeetForCTC"}
_DURATIONS = [0, 1, 2, 3, 4]  # unless config.json says others
_INSTEAD = "ParakeetForRNNT, ParakeetForTDT and ParakeetForCTC can be (model_type parakeet_rnnt, ..._tdt, ..._ctc)"


class Parakeet:
    """The `Importer` of folders with config.json and safetensors files."""

    def recognises(self, path: Path) -> bool:
        """A folder of transformers, but of none of the encoders that `Foundation` reads."""
        kind = model_type(path)
        return kind is not None and kind not in FOUNDATIONS

    def describe(self, path: Path) -> Foreign:
        """As `Importer` says."""
        config = Described(path, read_json(path / "config.json"))
        toolkit = f"Hugging Face {_CLASSES[config.require('model_type', tuple(_CLASSES), _INSTEAD)]}"
        said = _model(config, path.resolve().name)
        tokenizer = _tokenizer(path, said.labels)

        def weights() -> dict[str, Tensor]:
            return convert(
                path,
                said,
                {
                    renamed(name, _RENAMED): tensor
                    for name, tensor in tensors_of(path).items()
                    if not _UNUSED.match(name)
                },
            )

        origin = f"{path.resolve().name}, a {toolkit}; {licence_of(path)}"
        return Foreign(path, toolkit, said.model, said.features, tokenizer, origin, weights)


def _model(config: Described, name: str) -> NemoModel:
    encoder = config.section("encoder_config")
    for option, value in (("subsampling_conv_kernel_size", 3), ("subsampling_conv_stride", 2), ("hidden_act", "silu")):
        encoder.require(option, (value,), f"{value} can be", value)
    ctc = config.get("model_type") == "parakeet_ctc"
    labels = config.size("vocab_size", 1025 if ctc else None)
    blank, usual = ("pad_token_id", 1024) if ctc else ("blank_token_id", 8192)
    config.require(blank, (labels - 1,), f"with vocab_size={labels}, blank must be the last label", usual)
    return NemoModel(
        name=name,
        width=encoder.size("hidden_size", 1024),
        layers=encoder.size("num_hidden_layers", 24),
        heads=encoder.size("num_attention_heads", 8),
        inner_width=encoder.size("intermediate_size", 4096),
        kernel=encoder.size("conv_kernel_size", 9),
        depthwise=True,
        factor=encoder.require("subsampling_factor", (4, 8), "4 and 8 can be", 8),
        channels=encoder.size("subsampling_conv_channels", 256),
        layer_norm=False,
        scaled=bool(encoder.get("scale_input", True)),
        mel_bins=encoder.size("num_mel_bins", 80),
        by_utterance=True,
        labels=labels,
        transducer=None if ctc else _transducer(config),
    )


def _transducer(config: Described) -> NemoTransducer:
    width = config.size("decoder_hidden_size", 640)
    durations = config.get("durations", _DURATIONS) if config.get("model_type") == "parakeet_tdt" else None
    activation = config.require("hidden_act", ("relu", "tanh"), "joiners with relu or tanh can be", "relu")
    return NemoTransducer(
        predictor_width=width,
        predictor_layers=config.size("num_decoder_layers", 2),
        joiner_width=width,
        activation=Activation(activation),
        zero_start=False,
        max_duration_frames=max_duration(config, "durations", durations),
    )


def _tokenizer(path: Path, labels: int) -> Tokenizer:
    """From tokenizer.model if it is there, else from the pieces and merges of tokenizer.json."""
    model = path / "tokenizer.model"
    if model.is_file():
        tokenizer = with_blank_first(model.read_bytes(), str(model))
    else:
        tokenizer = _from_json(path / "tokenizer.json", labels - 1)
    if tokenizer.size != labels:
        raise UserError(f"{path}: its tokenizer has {tokenizer.size - 1} pieces, and its joiner {labels - 1} labels")
    return tokenizer


def _from_json(file: Path, pieces: int) -> Tokenizer:
    said = Described(file, read_json(file))
    model = said.section("model")
    model.require("type", ("BPE",), "byte-pair tokenizers can be, or put tokenizer.model beside it")
    by_id: dict[Any, Any] = {number: piece for piece, number in _vocabulary(model.get("vocab"), file)}
    for added in said.get("added_tokens", []):
        if isinstance(added, dict):
            by_id[added.get("id")] = added.get("content")
    names = [by_id.get(number) for number in range(pieces)]
    if any(not isinstance(name, str) for name in names):
        missing = next(number for number, name in enumerate(names) if not isinstance(name, str))
        raise UserError(f"{file} has no piece for label {missing} of {pieces}")
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model.get("merges", [])):
        joined = "".join(merge) if isinstance(merge, list) else str(merge).replace(" ", "", 1)
        ranks.setdefault(joined, rank)
    # Where a piece is learnt twice or not at all, its place decides, as in SentencePiece.
    return of_pieces(["<blk>", *(str(name) for name in names)], str(model.get("unk_token", "<unk>")), ranks)


def _vocabulary(vocab: Any, file: Path) -> list[tuple[str, int]]:
    if not isinstance(vocab, dict) or not all(isinstance(number, int) for number in vocab.values()):
        raise UserError(f"{file} has no vocabulary of numbered pieces")
    return list(vocab.items())

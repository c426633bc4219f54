"""Hugging Face folders of wav2vec 2.0 and HuBERT: pre-trained encoders of raw samples.

Their relatives with Conformer blocks are refused. Labels are left behind, if there are any: a run that starts from one
learns those of its training transcripts.
"""

from pathlib import Path

from torch import Tensor

from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureKind, Normalization
from nibble.imports.conversion import Conversion
from nibble.imports.description import Described
from nibble.imports.hugging_face import model_type, read_json, renamed, tensors_of
from nibble.imports.importer import Foreign
from nibble.imports.licence import licence_of
from nibble.model.options import FoundationConfig, FoundationKind, ModelConfig, Predictor

_INSTEAD = "give a folder of wav2vec 2.0, XLSR or HuBERT, or quantize this one in a LightningModule of your own"
_REFUSED = {  # model_type -> why, and what to do
    "wav2vec2-conformer": "its convolution modules hear the padding of a batch, so that an utterance's result would "
    f"depend on its neighbours; {_INSTEAD}",
    "wav2vec2-bert": "it hears pairs of mel frames (SeamlessM4TFeatureExtractor), and model.foundation raw samples; "
    f"{_INSTEAD}",
}
FOUNDATIONS = (*(kind.value for kind in FoundationKind), *_REFUSED)
_RENAMED = (  # transformers' names to ours, one after the other
    (r"^(wav2vec2|hubert)\.", ""),
    (r"^feature_extractor\.", "encoder.convolutions."),
    (r"^feature_projection\.", "encoder.projection."),
    (r"^encoder\.(?=pos_conv_embed|layer_norm|layers)", "encoder.transformer."),
    (r"\.conv\.weight_g$", ".conv.parametrizations.weight.original0"),  # as older versions of torch wrote it
    (r"\.conv\.weight_v$", ".conv.parametrizations.weight.original1"),
)
# What only pre-training needs, the vector of masked frames, and a head of labels.
_UNUSED = ("masked_spec_embed", "quantizer.", "project_q.", "project_hid.", "lm_head.", "final_proj.", "label_embs")
_AS_PUBLISHED = "the encoders of wav2vec 2.0, XLSR and HuBERT as they were published can be"


class Foundation:
    """The `Importer` of these folders."""

    def recognises(self, path: Path) -> bool:
        """A folder of transformers with one of these encoders or their relatives, whatever head is on it."""
        return model_type(path) in FOUNDATIONS

    def describe(self, path: Path) -> Foreign:
        """As `Importer` says."""
        config = Described(path, read_json(path / "config.json"))
        if (said := config.get("model_type")) in _REFUSED:
            raise config.refused("model_type", said, _REFUSED[said])
        kind = FoundationKind(said)
        name = path.resolve().name
        model = _model(config, kind, name)
        features = FeatureConfig(FeatureKind.samples, 1, _normalization(path))

        def weights() -> dict[str, Tensor]:
            tensors = {renamed(name, _RENAMED): tensor for name, tensor in tensors_of(path).items()}
            conversion = Conversion(path, tensors)
            for tensor in [name for name in tensors if name.startswith("encoder.")]:
                conversion.state[tensor] = conversion.take(tensor)
            conversion.finished(model, features, None, _UNUSED)
            return conversion.state

        toolkit = f"Hugging Face {kind.value}"
        return Foreign(path, toolkit, model, features, None, f"{name}, a {toolkit}; {licence_of(path)}", weights)


def _model(config: Described, kind: FoundationKind, name: str) -> ModelConfig:
    for option, value in (
        ("hidden_act", "gelu"),
        ("feat_extract_activation", "gelu"),
        ("feat_proj_layer_norm", True),
        ("conv_pos_batch_norm", False),
        ("add_adapter", False),
        ("layer_norm_eps", 1e-5),
    ):
        config.require(option, (value,), _AS_PUBLISHED, value)
    if (adapters := config.get("adapter_attn_dim")) is not None:
        raise config.refused("adapter_attn_dim", adapters, "models without adapters can be")
    norm = config.require("feat_extract_norm", ("group", "layer"), _AS_PUBLISHED, "group")
    width, inner = config.size("hidden_size", 768), config.size("intermediate_size", 3072)
    if inner % width:
        raise config.refused("intermediate_size", inner, f"multiples of hidden_size={width} can be")
    usual = FoundationConfig(kind)
    lists = {}
    for option, ours in (("conv_dim", "channels"), ("conv_kernel", "kernels"), ("conv_stride", "strides")):
        lists[ours] = config.get(option, getattr(usual, ours))
        if not isinstance(lists[ours], list) or not all(type(value) is int for value in lists[ours]):
            raise config.refused(option, lists[ours], "a list of whole numbers can be")
    return ModelConfig(
        name=name,
        width=width,
        layers=config.size("num_hidden_layers", 12),
        heads=config.size("num_attention_heads", 12),
        feed_forward_multiplier=inner // width,
        foundation=FoundationConfig(
            kind=kind,
            bias=bool(config.get("conv_bias", False)),
            layer_norm=norm == "layer",
            norm_first=bool(config.get("do_stable_layer_norm", False)),
            position_kernel=config.size("num_conv_pos_embeddings", 128),
            position_groups=config.size("num_conv_pos_embedding_groups", 16),
            **lists,
        ),
        predictor=Predictor.none,
    )


def _normalization(path: Path) -> Normalization:
    """Whether samples are normalised over the utterance, as preprocessor_config.json says; without it, as usual."""
    file = path / "preprocessor_config.json"
    said = read_json(file) if file.is_file() else {}
    if not isinstance(said, dict):
        raise UserError(f"{file} is damaged: it holds no options; download it again")
    return Normalization.utterance if said.get("do_normalize", True) else Normalization.none

"""ESPnet's packages of Conformers with `rel_pos_type: latest`: transducers, and CTC with or without a decoder."""

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureKind, Normalization
from nibble.imports.description import Described
from nibble.imports.espnet_layers import convert
from nibble.imports.importer import Foreign
from nibble.imports.licence import licence_of
from nibble.imports.package import Package, opened
from nibble.imports.pieces import in_order
from nibble.model.options import Activation, ModelConfig, Predictor
from nibble.runs.checkpoint_file import read_saved

META, CONFIG = "meta.yaml", "config.yaml"
NORM_EPSILON = 1e-12  # of ESPnet's LayerNorm
_SHIFTS = {160: FeatureKind.espnet, 128: FeatureKind.espnet_8ms}  # by hop_length


class Espnet:
    """The `Importer` of zip archives and folders with meta.yaml, or with config.yaml and one .pth file."""

    def recognises(self, path: Path) -> bool:
        """By the names of its files."""
        if path.is_file():
            return path.suffix == ".zip"
        return (path / META).is_file() or ((path / CONFIG).is_file() and any(path.glob("*.pth")))

    def describe(self, path: Path) -> Foreign:
        """As `Importer` says."""
        whole = path.resolve()
        with opened(path) as package:
            config_name, weights_name = _members(package)
            config = Described(path, _yaml(package, config_name))
            model, features = _model(config, whole.name if whole.is_dir() else whole.stem), _features(config)
            tokenizer = _tokenizer(config, package)

        def weights() -> dict[str, Tensor]:
            with opened(path) as package, package.opened(weights_name) as file:
                tensors = read_saved(file, f"{path}:{weights_name}")
            if not isinstance(tensors, dict):
                raise UserError(f"{path}: {weights_name} holds no weights by name")
            return convert(path, tensors, model, features, tokenizer.size)

        kind = f"ESPnet Conformer {'with CTC' if model.predictor is Predictor.none else 'transducer'}"
        origin = f"{whole.name}, an {kind}; {licence_of(path)}"
        return Foreign(path, kind, model, features, tokenizer, origin, weights)


def _members(package: Package) -> tuple[str, str]:
    """The names of the configuration and of the weights: as meta.yaml says, or the only ones of a folder."""
    if META in package:
        meta = Described(package.path, _yaml(package, META), f"{META}: ")
        found = meta.section("yaml_files").get("asr_train_config"), meta.section("files").get("asr_model_file")
        if not all(isinstance(name, str) for name in found):
            raise UserError(f"{package.path}: {META} names no asr_train_config and asr_model_file: it is no recogniser")
        return str(found[0]), str(found[1])
    files = package.named(".pth")
    if len(files) != 1:
        raise UserError(f"{package.path} has no {META}, and {len(files)} .pth files; leave the one that is wanted")
    return CONFIG, files[0]


def _yaml(package: Package, name: str) -> Any:
    try:
        return yaml.safe_load(package.bytes_of(name))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{package.path}: {name} is damaged: {text}; download it again") from error


def _model(config: Described, name: str) -> ModelConfig:
    config.require("model", ("espnet",), "models of its task asr (espnet) can be", "espnet")
    config.require("encoder", ("conformer",), "conformer can be")
    for part in ("preencoder", "postencoder"):
        if (value := config.get(part)) is not None:
            raise config.refused(part, value, "models without it can be")
    encoder = config.section("encoder_conf")
    _check_encoder(encoder)
    width = encoder.size("output_size", 256)
    heads = encoder.size("attention_heads", 4)
    return ModelConfig(
        name=name,
        width=width,
        layers=encoder.size("num_blocks", 6),
        heads=heads,
        feed_forward_multiplier=encoder.size("linear_units", 2048) / width,
        kernel=encoder.size("cnn_module_kernel", 31),
        final_norm=True,
        norm_epsilon=NORM_EPSILON,
        **_head(config),
    )


def _check_encoder(encoder: Described) -> None:
    positions = "train with rel_pos_type: latest; without that line, positions are the legacy ones"
    encoder.require("rel_pos_type", ("latest",), positions)
    for name, value, default in (
        ("pos_enc_layer_type", "rel_pos", "rel_pos"),
        ("selfattention_layer_type", "rel_selfattn", "rel_selfattn"),
        ("macaron_style", True, False),
        ("use_cnn_module", True, True),
        ("normalize_before", True, True),
        ("concat_after", False, False),
        ("zero_triu", False, False),
        ("qk_norm", False, False),
        ("interctc_use_conditioning", False, False),
        ("input_layer", "conv2d", "conv2d"),
        ("positionwise_layer_type", "linear", "linear"),
        ("activation_type", "swish", "swish"),
    ):
        encoder.require(name, (value,), f"{name}: {str(value).lower()} can be", default)


def _head(config: Described) -> dict[str, Any]:
    """The options of predictor and joiner; of a model that is no transducer, those of its CTC head."""
    said = config.section("model_conf") if config.get("model_conf") is not None else Described(config.path, {})
    if config.get("decoder") != "transducer":
        if said.get("ctc_weight", 0.5) == 0:
            raise config.refused("decoder", config.get("decoder"), "a transducer, or a model with ctc_weight above 0")
        return {"predictor": Predictor.none}
    if durations := said.get("transducer_multi_blank_durations"):
        raise said.refused("transducer_multi_blank_durations", durations, "transducers with one blank can be")
    decoder, joint = (
        Described(config.path, config.get(name, {}), f"{name}.") for name in ("decoder_conf", "joint_net_conf")
    )
    decoder.require("rnn_type", ("lstm",), "lstm can be", "lstm")
    activation = joint.require("joint_activation_type", ("tanh", "relu"), "joiners with tanh or relu can be", "tanh")
    width = decoder.size("hidden_size", 320)
    return {
        "predictor": Predictor.lstm,
        "predictor_width": width,
        "predictor_layers": decoder.size("num_layers", 1),
        "embedding_width": width,
        "joiner_width": joint.size("joint_space_size", 256),
        "joiner_activation": Activation(activation),
    }


def _features(config: Described) -> FeatureConfig:
    config.require("frontend", ("default",), "log-mel features (default) can be", "default")
    heard = Described(config.path, config.get("frontend_conf", {}), "frontend_conf.")
    for name, allowed in (
        ("fs", (16_000, "16k", "16000")),
        ("n_fft", (512,)),
        ("win_length", (512,)),
        ("window", ("hann",)),
        ("center", (True,)),
        ("normalized", (False,)),
        ("onesided", (True,)),
        ("fmin", (0,)),
        ("fmax", (8_000,)),
        ("htk", (False,)),
        ("apply_stft", (True,)),
    ):
        heard.require(name, allowed, "16 kHz, Hann windows of 512 samples and 0 to 8 kHz can be", allowed[0])
    if (value := heard.get("frontend_conf")) is not None:
        raise heard.refused("frontend_conf", value, "one microphone without beamforming can be")
    shift = heard.require("hop_length", tuple(_SHIFTS), "160 and 128 can be", 128)
    return FeatureConfig(_SHIFTS[shift], heard.size("n_mels", 80), _normalization(config))


def _normalization(config: Described) -> Normalization:
    kind = config.get("normalize")
    if kind is None:
        return Normalization.none
    config.require("normalize", ("global_mvn",), "global_mvn can be, or none")
    said = Described(config.path, config.get("normalize_conf", {}), "normalize_conf.")
    for name in ("norm_means", "norm_vars"):
        said.require(name, (True,), "mean and variance can be", True)
    return Normalization.corpus


def _tokenizer(config: Described, package: Package) -> Tokenizer:
    config.require("token_type", ("bpe",), "models with a SentencePiece tokenizer (bpe) can be", "bpe")
    tokens = config.get("token_list")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{config.path}: token_list is no list of labels")
    parts = Path(str(config.get("bpemodel", "none"))).parts  # a package that was unpacked names it by its whole path
    names = ["/".join(parts[first:]) for first in range(len(parts))]
    name = next((name for name in names if name in package), None)
    if name is None:
        raise UserError(f"{config.path} has no bpemodel={config.get('bpemodel')!s:.200} inside; copy it there")
    return in_order(package.bytes_of(name), tokens, f"{config.path}:{name}")

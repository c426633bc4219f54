"""NeMo's .nemo archives of Conformer and FastConformer transducers, alone or beside a CTC head, and of CTC alone."""

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.imports.archive import Archive, opened
from nibble.imports.description import Described
from nibble.imports.importer import Foreign
from nibble.imports.nemo_layers import NemoModel, NemoTransducer, convert, max_duration, untied
from nibble.imports.pieces import with_blank_first
from nibble.model.options import Activation
from nibble.runs.checkpoint_file import read_saved

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
_CTC = "EncDecCTCModelBPE"
_CLASSES = ("EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEModel", _CTC)
_KNOWN = f"give a model with SentencePiece labels: {', '.join(_CLASSES[:-1])} or {_CTC}"
_LICENCE = "licence: as the page of that model says (most of NVIDIA's are CC-BY-4.0, which asks for attribution)"


class Nemo:
    """The `Importer` of .nemo files."""

    def recognises(self, path: Path) -> bool:
        """A file of that name."""
        return path.suffix == ".nemo" and path.is_file()

    def describe(self, path: Path) -> Foreign:
        """As `Importer` says."""
        with opened(path) as archive:
            config = _config(path, archive)
            kind = _kind(config)
            tokenizer = _tokenizer(config, archive)
            said = nemo_model(config, path.stem, tokenizer.size)
        shares_biases = not config.section("encoder").get("untie_biases", True)

        def weights() -> dict[str, Tensor]:
            with opened(path) as archive, archive.opened(WEIGHTS) as file:
                tensors = read_saved(file, f"{path}:{WEIGHTS}")
            if not isinstance(tensors, dict):
                raise UserError(f"{path}: {WEIGHTS} holds no weights by name")
            if shares_biases:
                untied(tensors, said.layers)
            return convert(path, said, tensors)

        origin = f"{path.name}, a NeMo {kind}; {_LICENCE}"
        return Foreign(path, f"NeMo {kind}", said.model, said.features, tokenizer, origin, weights)


def _config(path: Path, archive: Archive) -> Described:
    try:
        values: Any = yaml.safe_load(archive.bytes_of(CONFIG))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: {CONFIG} is damaged: {str(error).splitlines()[0]}; download it again") from error
    return Described(path, values)


def _kind(config: Described) -> str:
    """The class, without its module."""
    target = str(config.get("target", ""))
    kind = target.rpartition(".")[2]
    if kind not in _CLASSES:
        raise config.refused("target", kind or target, _KNOWN)
    return kind


def nemo_model(config: Described, name: str, labels: int) -> NemoModel:
    """What the configuration says of the network.

    Args:
        config: of the archive.
        name: of the model, for records.
        labels: of the tokenizer, with blank.

    Raises:
        UserError: our network cannot be that one.
    """
    encoder = config.section("encoder")
    heard = config.section("preprocessor")
    _check_features(heard)
    width = encoder.size("d_model")
    subsampling = encoder.require(
        "subsampling", ("striding", "dw_striding"), "models with striding or dw_striding can be", "striding"
    )
    depthwise = subsampling == "dw_striding"
    factors = (4, 8) if depthwise else (4,)
    factor = encoder.require("subsampling_factor", factors, f"with {subsampling} it may be {factors}", 4)
    _check_encoder(encoder)
    channels = encoder.get("subsampling_conv_channels", -1)
    inner = encoder.size("ff_expansion_factor", 4) * width
    norm = encoder.require(
        "conv_norm_type", ("batch_norm", "layer_norm"), "batch_norm and layer_norm can be", "batch_norm"
    )
    return NemoModel(
        name=name,
        width=width,
        layers=encoder.size("n_layers"),
        heads=encoder.size("n_heads", 4),
        inner_width=inner,
        kernel=encoder.size("conv_kernel_size", 31),
        depthwise=depthwise,
        factor=factor,
        channels=width if channels == -1 else encoder.size("subsampling_conv_channels"),
        layer_norm=norm == "layer_norm",
        scaled=bool(encoder.get("xscaling", True)),
        mel_bins=heard.size("features", 64),
        by_utterance=heard.values.get("normalize", "per_feature") == "per_feature",
        labels=labels,
        transducer=_transducer(config, labels),
    )


def _transducer(config: Described, labels: int) -> NemoTransducer | None:
    """What is said of predictor and joiner; None of a CTC network, which has neither."""
    decoder = config.section("decoder")
    ctc = _kind(config) == _CTC
    size = "num_classes" if ctc else "vocab_size"
    if (said := decoder.get(size, labels - 1)) not in (labels - 1, -1):
        raise decoder.refused(size, said, f"its tokenizer has {labels - 1} pieces")
    if ctc:
        return None
    joint = config.section("joint")
    prednet, jointnet = decoder.section("prednet"), joint.section("jointnet")
    _check_predictor(decoder)
    activation = jointnet.require("activation", ("relu", "tanh"), "joiners with relu or tanh can be", "relu")
    return NemoTransducer(
        predictor_width=prednet.size("pred_hidden"),
        predictor_layers=prednet.size("pred_rnn_layers", 1),
        joiner_width=jointnet.size("joint_hidden"),
        activation=Activation(activation),
        zero_start=True,
        max_duration_frames=_max_duration(config, joint),
    )


def _check_features(heard: Described) -> None:
    instead = "features=nemo computes the usual ones: 16 kHz, 25 ms Hann windows every 10 ms"
    for name, value in (
        ("sample_rate", SAMPLE_RATE_HZ),
        ("window_size", 0.025),
        ("window_stride", 0.01),
        ("window", "hann"),
        ("n_fft", 512),
        ("log", True),
        ("frame_splicing", 1),
        ("mag_power", 2.0),
        ("preemph", 0.97),
        ("lowfreq", 0),
    ):
        if heard.get(name, value) != value:
            raise heard.refused(name, heard.get(name), instead)
    if (highest := heard.get("highfreq")) not in (None, 8_000):
        raise heard.refused("highfreq", highest, instead)
    normalize = heard.values.get("normalize", "per_feature")
    if normalize not in ("per_feature", "NA", None):
        raise heard.refused("normalize", normalize, "per_feature and NA can be")


def _check_encoder(encoder: Described) -> None:
    whole = "a model that attends to whole utterances can be"
    encoder.require("self_attention_model", ("rel_pos",), "rel_pos can be", "rel_pos")
    context = encoder.get("att_context_size", [-1, -1])
    if context not in ([-1, -1], (-1, -1)):
        raise encoder.refused("att_context_size", context, whole)
    encoder.require("att_context_style", ("regular",), whole, "regular")
    encoder.require("causal_downsampling", (False,), whole, False)
    for name in ("reduction", "conv_context_size", "global_tokens"):
        if (value := encoder.get(name)) not in (None, 0):
            raise encoder.refused(name, value, "models without it can be")
    if (out := encoder.get("feat_out", -1)) not in (-1, 0):
        raise encoder.refused("feat_out", out, "models without a projection after the encoder can be")


def _check_predictor(decoder: Described) -> None:
    kind = str(decoder.get("_target_", "RNNTDecoder")).rpartition(".")[2]
    if kind != "RNNTDecoder":
        raise decoder.refused("_target_", kind, "the LSTM predictor RNNTDecoder can be")
    if (norm := decoder.get("normalization_mode")) is not None:
        raise decoder.refused("normalization_mode", norm, "predictors without it can be")
    decoder.require("blank_as_pad", (True,), "models with blank_as_pad=true can be", True)


def _max_duration(config: Described, joint: Described) -> int:
    """As `nibble.imports.nemo_layers.max_duration`: durations stand with the defaults or with the search."""
    found = None
    for section, name in (("model_defaults", "tdt_durations"), ("decoding", "durations")):
        if found is None and isinstance(config.get(section), dict):
            found = config.section(section).get(name)
    longest = max_duration(config, "model_defaults.tdt_durations", found)
    rows = longest + 1 if longest else 0
    if (extra := joint.get("num_extra_outputs", 0)) != rows:
        raise joint.refused("num_extra_outputs", extra, f"the configuration names {rows} durations")
    return longest


def _tokenizer(config: Described, archive: Archive) -> Tokenizer:
    if not isinstance(config.get("tokenizer"), dict):
        raise config.refused("labels", "characters", _KNOWN)
    said = config.section("tokenizer")
    said.require("type", ("bpe",), "models with one SentencePiece tokenizer (type: bpe) can be", "bpe")
    wanted = str(said.get("model_path", "")).removeprefix("nemo:")
    names = [name for name in archive.names() if name.endswith(("tokenizer.model", "spm.model"))]
    name = wanted if wanted in archive.names() else names[0] if len(names) == 1 else wanted
    return with_blank_first(archive.bytes_of(name), f"{config.path}:{name}")

"""An ESPnet package gives what its Conformer transducer, written out here from its description, computes.

espnet itself is not installed here: names, shapes, positions, epsilons and defaults are those of its layers as
published (release 202511), and nothing was run against it.
"""

import io
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from sentencepiece import SentencePieceProcessor
from speech_model import as_transducer, features_of, greedy_ids, sentencepiece_model

from nibble.errors import UserError
from nibble.features.nemo import mel_filters
from nibble.features.options import FeatureKind, Normalization
from nibble.imports.recognition import is_foreign, read_foreign
from nibble.model.decoding import greedy
from nibble.model.options import Predictor
from nibble.quant.convert import prepare, set_precision
from nibble.quant.numerics import quantize_weight
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec
from nibble.runs.frozen import frozen_copy

WIDTH, HEADS, INNER, KERNEL, JOINER, HIDDEN, LAYERS = 16, 2, 64, 5, 12, 10, 2
TOKENIZER = sentencepiece_model(25, bos_id=1, eos_id=2, model_type="unigram")  # unknown 0, as ESPnet trains them
PIECES = [SentencePieceProcessor(model_proto=TOKENIZER).id_to_piece(number) for number in range(3, 25)]
TOKENS = ["<blank>", "<unk>", *PIECES, "<sos/eos>"]
BPE = "data/en_token_list/bpe_unigram30/bpe.model"
EXP = "exp/asr_train_raw_en_bpe30"


def description(**changes: Any) -> dict[str, Any]:
    """config.yaml, as far as it says something of the network; a change of None removes a line of encoder_conf."""
    said: dict[str, Any] = {
        "token_list": TOKENS,
        "token_type": "bpe",
        "bpemodel": BPE,
        "frontend": "default",
        "frontend_conf": {"n_fft": 512, "hop_length": 160, "fs": "16k"},
        "specaug": "specaug",
        "normalize": "global_mvn",
        "normalize_conf": {"stats_file": "exp/asr_stats_raw_en_bpe30_sp/train/feats_stats.npz"},
        "model": "espnet",
        "model_conf": {"ctc_weight": 0.3},
        "preencoder": None,
        "encoder": "conformer",
        "encoder_conf": {
            "output_size": WIDTH,
            "attention_heads": HEADS,
            "linear_units": INNER,
            "num_blocks": LAYERS,
            "dropout_rate": 0.1,
            "input_layer": "conv2d",
            "normalize_before": True,
            "macaron_style": True,
            "rel_pos_type": "latest",
            "pos_enc_layer_type": "rel_pos",
            "selfattention_layer_type": "rel_selfattn",
            "activation_type": "swish",
            "use_cnn_module": True,
            "cnn_module_kernel": KERNEL,
        },
        "postencoder": None,
        "decoder": "transducer",
        "decoder_conf": {"rnn_type": "lstm", "num_layers": 2, "hidden_size": HIDDEN, "dropout": 0.1},
        "joint_net_conf": {"joint_space_size": JOINER},
    }
    for name, value in changes.items():
        section, _, option = name.partition("__")
        if option:
            said[section] = {**said[section], option: value}
        else:
            said[section] = value
    return said


def weights(ctc_only: bool = False) -> dict[str, torch.Tensor]:
    """Random tensors under ESPnet's names, in its shapes."""
    random = torch.Generator().manual_seed(0)
    found: dict[str, torch.Tensor] = {"frontend.logmel.melmat": mel_filters(80)}

    def add(name: str, *shape: int, bias: bool = True) -> None:
        fan_in = max(1, torch.Size(shape[1:]).numel())
        found[f"{name}.weight"] = torch.randn(shape, generator=random) / fan_in**0.5
        if bias:
            found[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=random)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = 1 + 0.1 * torch.randn(WIDTH, generator=random)
        found[f"{name}.bias"] = 0.1 * torch.randn(WIDTH, generator=random)

    found["normalize.mean"] = torch.randn(80, generator=random, dtype=torch.float64) - 8
    found["normalize.std"] = 0.5 + 3 * torch.rand(80, generator=random, dtype=torch.float64)
    add("encoder.embed.conv.0", WIDTH, 1, 3, 3)
    add("encoder.embed.conv.2", WIDTH, WIDTH, 3, 3)
    add("encoder.embed.out.0", WIDTH, WIDTH * 19)
    for layer in range(LAYERS):
        at = f"encoder.encoders.{layer}"
        for name in ("feed_forward_macaron", "feed_forward"):
            add(f"{at}.{name}.w_1", INNER, WIDTH)
            add(f"{at}.{name}.w_2", WIDTH, INNER)
        for name in ("norm_ff_macaron", "norm_ff", "norm_mha", "norm_conv", "norm_final"):
            norm(f"{at}.{name}")
        for name in ("q", "k", "v", "out"):
            add(f"{at}.self_attn.linear_{name}", WIDTH, WIDTH)
        add(f"{at}.self_attn.linear_pos", WIDTH, WIDTH, bias=False)
        for name in "uv":
            found[f"{at}.self_attn.pos_bias_{name}"] = torch.randn(HEADS, WIDTH // HEADS, generator=random)
        add(f"{at}.conv_module.pointwise_conv1", 2 * WIDTH, WIDTH, 1)
        add(f"{at}.conv_module.depthwise_conv", WIDTH, 1, KERNEL)
        norm(f"{at}.conv_module.norm")
        found[f"{at}.conv_module.norm.running_mean"] = 0.1 * torch.randn(WIDTH, generator=random)
        found[f"{at}.conv_module.norm.running_var"] = 0.5 + torch.rand(WIDTH, generator=random)
        found[f"{at}.conv_module.norm.num_batches_tracked"] = torch.tensor(7)
        add(f"{at}.conv_module.pointwise_conv2", WIDTH, WIDTH, 1)
    norm("encoder.after_norm")
    add("ctc.ctc_lo", len(TOKENS), WIDTH)
    if ctc_only:  # a hybrid, with an attention decoder
        add("decoder.embed.0", len(TOKENS), WIDTH, bias=False)
        add("decoder.output_layer", len(TOKENS), WIDTH)
        return found
    found["decoder.embed.weight"] = torch.randn(len(TOKENS), HIDDEN, generator=random)
    for layer in range(2):
        for name in ("ih", "hh"):
            found[f"decoder.decoder.{layer}.weight_{name}_l0"] = torch.randn(4 * HIDDEN, HIDDEN, generator=random) / 3
            found[f"decoder.decoder.{layer}.bias_{name}_l0"] = 0.1 * torch.randn(4 * HIDDEN, generator=random)
    add("joint_network.lin_enc", JOINER, WIDTH)
    add("joint_network.lin_dec", JOINER, HIDDEN, bias=False)
    add("joint_network.lin_out", len(TOKENS), JOINER)
    found["joint_network.lin_out.weight"] *= 3  # so that labels are heard, and not blank alone
    found["joint_network.lin_out.bias"][0] += 4  # nor none
    return found


def members(said: object, tensors: object) -> dict[str, bytes]:
    """The files of a package by name."""
    saved = io.BytesIO()
    torch.save(tensors, saved)
    meta = {
        "files": {"asr_model_file": f"{EXP}/10epoch.pth"},
        "yaml_files": {"asr_train_config": f"{EXP}/config.yaml"},
        "espnet": "202511",
    }
    return {
        "meta.yaml": yaml.safe_dump(meta).encode(),
        f"{EXP}/config.yaml": yaml.safe_dump(said).encode(),
        f"{EXP}/10epoch.pth": saved.getvalue(),
        BPE: TOKENIZER,
    }


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, file in files.items():
            archive.writestr(name, file)
    return content.getvalue()


def write(path: Path, said: object, tensors: object, compression: int = zipfile.ZIP_STORED) -> Path:
    path.write_bytes(zipped(members(said, tensors), compression))
    return path


def unpacked(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def encoded_by_definition(t: dict[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """One utterance (1, T, F) through normalisation and ESPnet's encoder."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, t[f"{name}.weight"].flatten(1), t.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"], eps=1e-12)

    def feed_forward(x: torch.Tensor, at: str, of_norm: str) -> torch.Tensor:
        return x + 0.5 * linear(F.silu(linear(norm(x, of_norm), f"{at}.w_1")), f"{at}.w_2")

    x = ((features - t["normalize.mean"].float()) / t["normalize.std"].float()).unsqueeze(1)
    for number in (0, 2):
        at = f"encoder.embed.conv.{number}"
        x = F.conv2d(x, t[f"{at}.weight"], t[f"{at}.bias"], stride=2).relu()
    x = linear(x.transpose(1, 2).flatten(2), "encoder.embed.out.0") * WIDTH**0.5
    frames = x.size(1)
    distances = torch.arange(frames - 1, -frames, -1.0)
    rates = torch.exp(torch.arange(0, WIDTH, 2) * -(torch.log(torch.tensor(10_000.0)) / WIDTH))
    angles = distances[:, None] * rates
    positions = torch.stack((angles.sin(), angles.cos()), 2).flatten(1)
    for layer in range(LAYERS):
        at = f"encoder.encoders.{layer}"
        x = feed_forward(x, f"{at}.feed_forward_macaron", f"{at}.norm_ff_macaron")
        normed = norm(x, f"{at}.norm_mha")
        query, key, value = (
            linear(normed, f"{at}.self_attn.linear_{name}").view(frames, HEADS, -1).transpose(0, 1) for name in "qkv"
        )
        placed = linear(positions, f"{at}.self_attn.linear_pos").view(-1, HEADS, WIDTH // HEADS).transpose(0, 1)
        u, v = (t[f"{at}.self_attn.pos_bias_{name}"][:, None] for name in "uv")
        by_distance = (query + v) @ placed.transpose(1, 2)
        i, j = torch.arange(frames)[:, None], torch.arange(frames)
        scores = (query + u) @ key.transpose(1, 2) + by_distance[:, i, frames - 1 - (i - j)]
        attended = ((scores / (WIDTH // HEADS) ** 0.5).softmax(2) @ value).transpose(0, 1).flatten(1)
        x = x + linear(attended, f"{at}.self_attn.linear_out")
        conv = f"{at}.conv_module"
        y = F.glu(linear(norm(x, f"{at}.norm_conv"), f"{conv}.pointwise_conv1"), 2).transpose(1, 2)
        filters = t[f"{conv}.depthwise_conv.weight"], t[f"{conv}.depthwise_conv.bias"]
        y = F.conv1d(y, *filters, padding=KERNEL // 2, groups=WIDTH)
        batch_norm = [t[f"{conv}.norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = x + linear(F.silu(F.batch_norm(y, *batch_norm).transpose(1, 2)), f"{conv}.pointwise_conv2")
        x = feed_forward(x, f"{at}.feed_forward", f"{at}.norm_ff")
        x = norm(x, f"{at}.norm_final")
    return norm(x, "encoder.after_norm")


def logits_by_definition(t: dict[str, torch.Tensor], encoded: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """(T', U + 1, V): LSTMs of one layer, one on the other, over blank and the labels."""
    x = F.embedding(torch.tensor([0, *labels]), t["decoder.embed.weight"])
    for layer in range(2):
        lstm = torch.nn.LSTM(HIDDEN, HIDDEN)
        lstm.load_state_dict(
            {name: t[f"decoder.decoder.{layer}.{name}"] for name, _ in lstm.named_parameters()}  # each ends in l0
        )
        x = lstm(x)[0]
    projected = F.linear(encoded[0], t["joint_network.lin_enc.weight"], t["joint_network.lin_enc.bias"])
    both = torch.tanh(projected[:, None] + F.linear(x, t["joint_network.lin_dec.weight"]))
    return F.linear(both, t["joint_network.lin_out.weight"], t["joint_network.lin_out.bias"])


def spoken(frames: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features in the range of logarithms of speech."""
    features, lengths = features_of(frames, 80)
    return 3 * features - 8, lengths


@torch.no_grad()
def test_encoder_logits_and_text_are_espnets(tmp_path: Path) -> None:
    tensors = weights()
    path = write(tmp_path / "package.zip", description(), tensors, zipfile.ZIP_DEFLATED)
    assert is_foreign(path)
    foreign = read_foreign(path)
    assert (foreign.named, foreign.model.name) == ("an ESPnet Conformer transducer", "package")
    assert (foreign.features.kind, foreign.features.normalization) == (FeatureKind.espnet, Normalization.corpus)
    model = as_transducer(foreign)
    assert {module.eps for module in model.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-12}
    features, lengths = spoken([120, 75])
    encoded, counts = model.encode(features, lengths)
    for row, count in enumerate(counts.tolist()):
        expected = encoded_by_definition(tensors, features[row : row + 1, : lengths[row]])
        ours = encoded[row : row + 1, :count]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
        labels = [4, 9, 2]
        found = model.join(ours, model.predict(torch.tensor([labels])))[0]
        torch.testing.assert_close(found, logits_by_definition(tensors, expected, labels), atol=1e-5, rtol=1e-5)

        def logits_of(frame: int, said: list[int], expected: torch.Tensor = expected) -> torch.Tensor:
            return logits_by_definition(tensors, expected[:, frame : frame + 1], said)[0, -1]

        wanted = greedy_ids(logits_of, count, blank=0)
        heard = greedy(model, ours, counts[row : row + 1])[0].ids
        assert heard == wanted
        assert len(set(wanted)) > 3
        written = SentencePieceProcessor(model_proto=TOKENIZER)
        pieces = [TOKENS[label] for label in wanted if 1 < label < len(TOKENS) - 1]
        known = [label for label in heard if 1 < label < len(TOKENS) - 1]
        assert foreign.tokenizer.decode(known) == written.decode_pieces(pieces)


@torch.no_grad()
def test_a_model_without_transducer_is_its_encoder_with_ctc(tmp_path: Path) -> None:
    tensors = weights(ctc_only=True)
    said = description(decoder="transformer", decoder_conf={"num_blocks": 6}, frontend_conf={"fs": 16_000})
    foreign = read_foreign(write(tmp_path / "package.zip", said, tensors))
    assert foreign.model.predictor is Predictor.none
    assert foreign.features.kind is FeatureKind.espnet_8ms  # ESPnet's own default
    model = as_transducer(foreign)
    features, lengths = spoken([90])
    expected = encoded_by_definition(tensors, features)
    logits = F.linear(expected, tensors["ctc.ctc_lo.weight"], tensors["ctc.ctc_lo.bias"])
    found = model.joiner.output(model.encode(features, lengths)[0])
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-5)


def test_int4_after_the_import_is_int4_of_the_same_weights(tmp_path: Path) -> None:
    """All but the subsampling's projection are as they were; that one is multiplied by 4, the root of the width."""
    tensors = weights()
    model = as_transducer(read_foreign(write(tmp_path / "package.zip", description(), tensors)))
    prepare(model, QuantConfig("int4", [Rule(weight=WeightSpec(4), activation=ActivationSpec())]))
    set_precision(model, Precision.rules)
    ours = frozen_copy(model).state_dict()
    block, layer = "encoder.blocks.1", "encoder.encoders.1"
    flattened = tensors["encoder.embed.out.0.weight"].view(WIDTH, WIDTH, 19).transpose(1, 2).flatten(1)
    for mine, weight in {
        "encoder.subsampling.conv2.weight": tensors["encoder.embed.conv.2.weight"],
        "encoder.subsampling.output.weight": flattened,
        f"{block}.attention.query.weight": tensors[f"{layer}.self_attn.linear_q.weight"],
        f"{block}.attention.position.weight": tensors[f"{layer}.self_attn.linear_pos.weight"],
        f"{block}.convolution.pointwise1.weight": tensors[f"{layer}.conv_module.pointwise_conv1.weight"].flatten(1),
        f"{block}.convolution.depthwise.weight": tensors[f"{layer}.conv_module.depthwise_conv.weight"],
        f"{block}.feed_forward1.expansion.weight": tensors[f"{layer}.feed_forward_macaron.w_1.weight"],
        f"{block}.feed_forward2.projection.weight": tensors[f"{layer}.feed_forward.w_2.weight"],
        "predictor.embedding.weight": tensors["decoder.embed.weight"],
        "predictor.upper.0.weight_hh_l0": tensors["decoder.decoder.1.weight_hh_l0"],
        "joiner.encoder.weight": tensors["joint_network.lin_enc.weight"],
        "joiner.predictor.weight": tensors["joint_network.lin_dec.weight"],
        "joiner.output.weight": tensors["joint_network.lin_out.weight"],
    }.items():
        assert torch.equal(ours[f"{mine}_codes"], quantize_weight(weight, WeightSpec(4), mine).codes), mine


def test_a_folder_is_read_as_the_archive(tmp_path: Path) -> None:
    files = members(description(), weights())
    expected = read_foreign(write(tmp_path / "package.zip", description(), weights())).weights()
    root = unpacked(tmp_path / "package", files)
    elsewhere = yaml.safe_dump(description(bpemodel=f"/somewhere/else/{BPE}"))  # as espnet_model_zoo rewrites it
    (root / EXP / "config.yaml").write_text(elsewhere)
    (root / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    flat = unpacked(
        tmp_path / "flat", {Path(name).name: content for name, content in files.items() if name != "meta.yaml"}
    )
    for folder in (root, flat):
        assert is_foreign(folder)
        foreign = read_foreign(folder)
        found = foreign.weights()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert read_foreign(root).origin == "package, an ESPnet Conformer transducer; licence: cc-by-4.0"
    (flat / "other.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"has no meta\.yaml, and 2 \.pth files"):
        read_foreign(flat)


def test_the_tokenizer_is_theirs_in_the_order_of_their_labels(tmp_path: Path) -> None:
    tokenizer = read_foreign(write(tmp_path / "package.zip", description(), weights())).tokenizer
    assert tokenizer.pieces(range(tokenizer.size)) == TOKENS
    theirs = SentencePieceProcessor(model_proto=TOKENIZER)
    for text in ("STOP GOING", "ONE TWO THREE", "LEFT"):
        assert tokenizer.pieces(tokenizer.encode(text)) == theirs.encode(text, out_type=str)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown("STOP Ü") == {"Ü"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_conf__rel_pos_type": None}, r"encoder_conf\.rel_pos_type=None cannot be imported; train with"),
        ({"encoder_conf__rel_pos_type": "legacy"}, r"encoder_conf\.rel_pos_type=legacy cannot"),
        ({"encoder_conf__macaron_style": False}, r"macaron_style=False cannot be imported; macaron_style: true can be"),
        ({"encoder_conf__macaron_style": None}, r"macaron_style=False"),
        ({"encoder_conf__input_layer": "conv2d6"}, r"input_layer=conv2d6"),
        ({"encoder_conf__selfattention_layer_type": "lf_selfattn"}, r"selfattention_layer_type=lf_selfattn"),
        ({"encoder_conf__activation_type": "relu"}, r"activation_type=relu"),
        ({"encoder": "e_branchformer"}, r"encoder=e_branchformer cannot be imported; conformer can be"),
        ({"model": "pit_espnet"}, r"model=pit_espnet"),
        ({"postencoder": "hugging_face_transformers"}, r"postencoder=hugging_face_transformers"),
        (
            {"decoder": "transformer", "model_conf": {"ctc_weight": 0.0}},
            r"decoder=transformer cannot be imported; a tr",
        ),
        ({"decoder_conf__rnn_type": "gru"}, r"decoder_conf\.rnn_type=gru"),
        ({"joint_net_conf__joint_activation_type": "swish"}, r"joint_activation_type=swish"),
        ({"model_conf__transducer_multi_blank_durations": [2, 4]}, r"transducer_multi_blank_durations=\[2, 4\]"),
        ({"frontend": "s3prl"}, r"frontend=s3prl"),
        ({"frontend_conf__fs": "8k"}, r"frontend_conf\.fs=8k"),
        ({"frontend_conf__win_length": 400}, r"win_length=400"),
        ({"frontend_conf__hop_length": 256}, r"hop_length=256 cannot be imported; 160 and 128 can be"),
        ({"frontend_conf__frontend_conf": {"use_wpe": True}}, r"frontend_conf\.frontend_conf="),
        ({"normalize": "utterance_mvn"}, r"normalize=utterance_mvn cannot be imported; global_mvn can be, or none"),
        ({"normalize_conf__norm_vars": False}, r"norm_vars=False"),
        ({"token_type": "char"}, r"token_type=char"),
        ({"bpemodel": "../bpe.model"}, r"package\.zip:bpe\.model|has no bpemodel="),
        ({"token_list": TOKENS[:-2]}, r"has a piece .* that is no label of this model"),
        ({"token_list": [*TOKENS, "NEW"]}, r"has no piece for the label NEW"),
        ({"token_list": TOKENS[1:]}, r"has a piece for label 0, which should be blank"),
        ({"token_list": 5}, r"token_list is no list of labels"),
        ({"normalize": None}, r"no place for: normalize\.mean, normalize\.std"),
        ({"encoder_conf__num_blocks": 3}, r"has no tensor encoder\.encoders\.2"),
    ],
)
def test_what_cannot_be_represented_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "package.zip", description(**deepcopy(change)), weights())
    with pytest.raises(UserError, match=message):
        read_foreign(path).weights()


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("encoder.extra.weight", torch.ones(2), r"no place for: encoder\.extra\.weight"),
        ("frontend.logmel.melmat", 2 * mel_filters(80), r"melmat are not Slaney's filters"),
        ("normalize.std", torch.zeros(80), r"normalize\.std has a deviation that is not above 0"),
        ("joint_network.lin_out.weight", torch.ones(3, JOINER), r"joiner\.output\.weight"),
    ],
)
def test_every_tensor_is_used_or_known(name: str, tensor: torch.Tensor, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "package.zip", description(), weights() | {name: tensor})
    with pytest.raises(UserError, match=message):
        read_foreign(path).weights()


def test_nothing_outside_the_package_is_read(tmp_path: Path) -> None:
    files = members(description(), weights())
    meta = {"files": {"asr_model_file": "../secret.pth"}, "yaml_files": {"asr_train_config": f"{EXP}/config.yaml"}}
    files["meta.yaml"] = yaml.safe_dump(meta).encode()
    (tmp_path / "secret.pth").write_bytes(files[f"{EXP}/10epoch.pth"])
    with pytest.raises(UserError, match=r"has no \.\./secret\.pth inside"):
        read_foreign(unpacked(tmp_path / "package", files)).weights()
    bomb = tmp_path / "bomb.zip"
    bomb.write_bytes(zipped({"meta.yaml": bytes(10_000_000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="20 times its own size"):
        read_foreign(bomb)
    bomb.write_bytes(b"PK")
    with pytest.raises(UserError, match="is damaged or no zip archive"):
        read_foreign(bomb)

"""A .nemo archive gives what NeMo's layers, written out here from their description, compute.

NeMo itself is too heavy for these tests. Of FastConformer, transformers has an implementation of its own under other
names, which test_parakeet.py runs.
"""

import io
import tarfile
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from speech_model import as_transducer, features_of, sentencepiece_model

from nibble.errors import UserError
from nibble.features.options import FeatureKind, Normalization
from nibble.imports.recognition import is_foreign, read_foreign
from nibble.model.decoding import greedy

PIECES, WIDTH, HEADS, INNER, KERNEL, JOINER = 30, 16, 2, 32, 5, 12


def description(**changes: Any) -> dict[str, Any]:
    """As NeMo writes model_config.yaml, as far as it says something of the network."""
    said: dict[str, Any] = {
        "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
        "sample_rate": 16000,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": 80,
            "n_fft": 512,
            "log": True,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "tokenizer": {"dir": "/old/place", "type": "bpe", "model_path": "nemo:1234_tokenizer.model"},
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": 80,
            "feat_out": -1,
            "n_layers": 2,
            "d_model": WIDTH,
            "subsampling": "striding",
            "subsampling_factor": 4,
            "subsampling_conv_channels": -1,
            "causal_downsampling": False,
            "ff_expansion_factor": INNER // WIDTH,
            "self_attention_model": "rel_pos",
            "n_heads": HEADS,
            "att_context_size": [-1, -1],
            "att_context_style": "regular",
            "xscaling": True,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": KERNEL,
            "conv_norm_type": "batch_norm",
            "conv_context_size": None,
        },
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "blank_as_pad": True,
            "vocab_size": PIECES,
            "prednet": {"pred_hidden": 10, "pred_rnn_layers": 2, "dropout": 0.2},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "jointnet": {"joint_hidden": JOINER, "activation": "relu", "dropout": 0.2},
        },
    }
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        section = said
        for name in path:
            section = section.setdefault(name, {})
        section[last] = value
    return said


def weights(said: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random tensors under NeMo's names, in its shapes."""
    random = torch.Generator().manual_seed(0)
    encoder = said["encoder"]
    found: dict[str, torch.Tensor] = {"preprocessor.featurizer.window": torch.ones(400)}

    def add(name: str, *shape: int, bias: bool = True) -> None:
        fan_in = max(1, torch.Size(shape[1:]).numel())
        found[f"{name}.weight"] = torch.randn(shape, generator=random) / fan_in**0.5
        if bias:
            found[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=random)

    def norm(name: str, statistics: bool = False) -> None:
        found[f"{name}.weight"] = 1 + 0.1 * torch.randn(WIDTH, generator=random)
        found[f"{name}.bias"] = 0.1 * torch.randn(WIDTH, generator=random)
        if statistics:
            found[f"{name}.running_mean"] = 0.1 * torch.randn(WIDTH, generator=random)
            found[f"{name}.running_var"] = 1 + 0.1 * torch.rand(WIDTH, generator=random)
            found[f"{name}.num_batches_tracked"] = torch.tensor(7)

    channels = WIDTH if encoder["subsampling_conv_channels"] == -1 else encoder["subsampling_conv_channels"]
    conv, bins = "encoder.pre_encode.conv", 80
    add(f"{conv}.0", channels, 1, 3, 3)
    if encoder["subsampling"] == "striding":
        add(f"{conv}.2", channels, channels, 3, 3)
        bins = 20
    else:
        for number in (2, 5):
            add(f"{conv}.{number}", channels, 1, 3, 3)
            add(f"{conv}.{number + 1}", channels, channels, 1, 1)
        bins = 10
    add("encoder.pre_encode.out", WIDTH, channels * bins)
    for layer in range(encoder["n_layers"]):
        at = f"encoder.layers.{layer}"
        for number in (1, 2):
            norm(f"{at}.norm_feed_forward{number}")
            add(f"{at}.feed_forward{number}.linear1", INNER, WIDTH)
            add(f"{at}.feed_forward{number}.linear2", WIDTH, INNER)
        for name in ("norm_self_att", "norm_conv", "norm_out"):
            norm(f"{at}.{name}")
        for name in "q", "k", "v", "out":
            add(f"{at}.self_attn.linear_{name}", WIDTH, WIDTH)
        add(f"{at}.self_attn.linear_pos", WIDTH, WIDTH, bias=False)
        for name in "uv":
            if encoder["untie_biases"]:
                found[f"{at}.self_attn.pos_bias_{name}"] = torch.randn(HEADS, WIDTH // HEADS, generator=random)
        add(f"{at}.conv.pointwise_conv1", 2 * WIDTH, WIDTH, 1)
        add(f"{at}.conv.depthwise_conv", WIDTH, 1, KERNEL)
        norm(f"{at}.conv.batch_norm", statistics=encoder["conv_norm_type"] == "batch_norm")
        add(f"{at}.conv.pointwise_conv2", WIDTH, WIDTH, 1)
    if not encoder["untie_biases"]:
        for name in "uv":
            found[f"encoder.pos_bias_{name}"] = torch.randn(HEADS, WIDTH // HEADS, generator=random)
    hidden = said["decoder"]["prednet"]["pred_hidden"]
    found["decoder.prediction.embed.weight"] = torch.randn(PIECES + 1, hidden, generator=random)
    found["decoder.prediction.embed.weight"][PIECES] = 0
    for layer in range(said["decoder"]["prednet"]["pred_rnn_layers"]):
        for name, columns in (("weight_ih", hidden), ("weight_hh", hidden), ("bias_ih", 0), ("bias_hh", 0)):
            shape = (4 * hidden, columns) if columns else (4 * hidden,)
            found[f"decoder.prediction.dec_rnn.lstm.{name}_l{layer}"] = 0.5 * torch.randn(shape, generator=random)
    add("joint.enc", JOINER, WIDTH)
    add("joint.pred", JOINER, hidden)
    rows = PIECES + 1 + said["joint"].get("num_extra_outputs", 0)
    add(f"joint.joint_net.{2 if said['joint']['jointnet']['dropout'] else 1}", rows, JOINER)
    return found


def write(path: Path, said: dict[str, Any], tensors: dict[str, torch.Tensor], mode: str = "w", **more: bytes) -> Path:
    file = io.BytesIO()
    torch.save(tensors, file)
    members = {
        "./model_config.yaml": yaml.safe_dump(said).encode(),
        "./model_weights.ckpt": file.getvalue(),
        "./1234_tokenizer.model": sentencepiece_model(PIECES),
        "./1234_vocab.txt": b"",
    } | more
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def encoded_by_definition(t: dict[str, torch.Tensor], said: dict[str, Any], features: torch.Tensor) -> torch.Tensor:
    """One utterance (1, T, F) through NeMo's encoder, as its documentation describes it."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, t[f"{name}.weight"].flatten(1), t.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"])

    x, conv = features.unsqueeze(1), "encoder.pre_encode.conv"
    if said["encoder"]["subsampling"] == "striding":
        for number in (0, 2):
            x = F.conv2d(x, t[f"{conv}.{number}.weight"], t[f"{conv}.{number}.bias"], 2, 1).relu()
    else:
        x = F.conv2d(x, t[f"{conv}.0.weight"], t[f"{conv}.0.bias"], 2, 1).relu()
        for number in (2, 5):
            x = F.conv2d(x, t[f"{conv}.{number}.weight"], t[f"{conv}.{number}.bias"], 2, 1, groups=x.size(1))
            x = F.conv2d(x, t[f"{conv}.{number + 1}.weight"], t[f"{conv}.{number + 1}.bias"]).relu()
    x = linear(x.transpose(1, 2).flatten(2), "encoder.pre_encode.out")  # channel outer, frequency inner
    if said["encoder"]["xscaling"]:
        x = x * WIDTH**0.5
    frames = x.size(1)
    distances = torch.arange(frames - 1, -frames, -1.0)
    rates = torch.exp(torch.arange(0, WIDTH, 2) * -(torch.log(torch.tensor(10_000.0)) / WIDTH))
    angles = distances[:, None] * rates
    positions = torch.stack((angles.sin(), angles.cos()), 2).flatten(1)
    for layer in range(said["encoder"]["n_layers"]):
        at = f"encoder.layers.{layer}"
        for number in (1, 2):
            if number == 2:
                y = norm(x, f"{at}.norm_self_att")
                query, key, value = (
                    linear(y, f"{at}.self_attn.linear_{name}").view(frames, HEADS, -1).transpose(0, 1) for name in "qkv"
                )
                placed = linear(positions, f"{at}.self_attn.linear_pos").view(-1, HEADS, WIDTH // HEADS).transpose(0, 1)
                u, v = (t.get(f"{at}.self_attn.pos_bias_{name}", t.get(f"encoder.pos_bias_{name}")) for name in "uv")
                content = (query + u[:, None]) @ key.transpose(1, 2)
                by_distance = (query + v[:, None]) @ placed.transpose(1, 2)  # (H, T, 2T - 1)
                i, j = torch.arange(frames)[:, None], torch.arange(frames)
                scores = (content + by_distance[:, i, frames - 1 - (i - j)]) / (WIDTH // HEADS) ** 0.5
                attended = (scores.softmax(2) @ value).transpose(0, 1).flatten(1)
                x = x + linear(attended, f"{at}.self_attn.linear_out")
                y = F.glu(linear(norm(x, f"{at}.norm_conv"), f"{at}.conv.pointwise_conv1"), 2).transpose(1, 2)
                filters = t[f"{at}.conv.depthwise_conv.weight"], t[f"{at}.conv.depthwise_conv.bias"]
                y = F.conv1d(y, *filters, padding=KERNEL // 2, groups=WIDTH)
                name = f"{at}.conv.batch_norm"
                if f"{name}.running_mean" in t:
                    statistics = t[f"{name}.running_mean"], t[f"{name}.running_var"]
                    y = F.batch_norm(y, *statistics, t[f"{name}.weight"], t[f"{name}.bias"]).transpose(1, 2)
                else:
                    y = norm(y.transpose(1, 2), name)
                x = x + linear(F.silu(y), f"{at}.conv.pointwise_conv2")
            y = linear(norm(x, f"{at}.norm_feed_forward{number}"), f"{at}.feed_forward{number}.linear1")
            x = x + 0.5 * linear(F.silu(y), f"{at}.feed_forward{number}.linear2")
        x = norm(x, f"{at}.norm_out")
    return x


def logits_by_definition(
    t: dict[str, torch.Tensor], said: dict[str, Any], encoded: torch.Tensor, labels: list[int]
) -> torch.Tensor:
    """(T', U + 1, V + E) with blank as the last label: the LSTM starts with a vector of zeros."""
    layers, hidden = said["decoder"]["prednet"]["pred_rnn_layers"], said["decoder"]["prednet"]["pred_hidden"]
    lstm = torch.nn.LSTM(hidden, hidden, layers, batch_first=True)
    lstm.load_state_dict(
        {name.rpartition(".")[2]: tensor for name, tensor in t.items() if name.startswith("decoder.prediction.dec_rnn")}
    )
    rows = [torch.zeros(hidden), *(t["decoder.prediction.embed.weight"][label] for label in labels)]
    predicted = lstm(torch.stack(rows)[None])[0][0]
    both = F.linear(encoded[0], t["joint.enc.weight"], t["joint.enc.bias"])[:, None]
    both = both + F.linear(predicted, t["joint.pred.weight"], t["joint.pred.bias"])
    head = next(name for name in t if name.startswith("joint.joint_net") and name.endswith("weight"))
    activation = getattr(torch, said["joint"]["jointnet"]["activation"])
    return F.linear(activation(both), t[head], t[head.replace("weight", "bias")])


VARIANTS: dict[str, dict[str, Any]] = {
    "conformer": {},
    "fastconformer": {
        "encoder__subsampling": "dw_striding",
        "encoder__subsampling_factor": 8,
        "encoder__subsampling_conv_channels": 6,
        "joint__jointnet__dropout": 0.0,
    },
    "layer norm, no scaling, shared biases, tanh": {
        "encoder__conv_norm_type": "layer_norm",
        "encoder__xscaling": False,
        "encoder__untie_biases": False,
        "joint__jointnet__activation": "tanh",
        "preprocessor__normalize": "NA",
        "decoder__prednet__pred_rnn_layers": 1,
    },
    "tdt": {"joint__num_extra_outputs": 5, "model_defaults": {"tdt_durations": [0, 1, 2, 3, 4]}},
    "hybrid": {"target": "nemo.collections.asr.models.EncDecHybridRNNTCTCBPEModel"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@torch.no_grad()
def test_encoder_and_logits_are_nemos(variant: str, mode: str, tmp_path: Path) -> None:
    said = description(**VARIANTS[variant])
    tensors = weights(said)
    if variant == "hybrid":
        tensors["ctc_decoder.decoder_layers.0.weight"] = torch.ones(PIECES + 1, WIDTH, 1)
    path = write(tmp_path / "model.nemo", said, tensors, mode)
    assert is_foreign(path)
    foreign = read_foreign(path)
    model = as_transducer(foreign)
    features, lengths = features_of([120, 75], 80)
    encoded, counts = model.encode(features, lengths)
    labels = [4, 9, 2]
    for row, count in enumerate(counts.tolist()):
        expected = encoded_by_definition(tensors, said, features[row : row + 1, : lengths[row]])
        torch.testing.assert_close(encoded[row : row + 1, :count], expected, atol=1e-5, rtol=1e-5)
        of_labels, of_durations = logits_by_definition(tensors, said, expected, labels).tensor_split((PIECES + 1,), -1)
        logits = torch.cat((of_labels.roll(1, -1), of_durations), -1)
        found = model.join(encoded[row : row + 1, :count], model.predict(torch.tensor([labels]) + 1))[0]
        torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-5)
    assert model.durations == (5 if variant == "tdt" else 0)
    normalized = said["preprocessor"]["normalize"] == "per_feature"
    assert foreign.features.kind is FeatureKind.nemo
    assert foreign.features.normalization is (Normalization.utterance if normalized else Normalization.none)
    assert foreign.tokenizer.pieces([0, 1]) == ["<blk>", "<unk>"]
    assert foreign.tokenizer.decode(foreign.tokenizer.encode("STOP GOING")) == "STOP GOING"


@torch.no_grad()
def test_a_ctc_network_is_nemos(tmp_path: Path) -> None:
    said = description(target="nemo.collections.asr.models.EncDecCTCModelBPE")
    tensors = {name: tensor for name, tensor in weights(said).items() if not name.startswith(("decoder.", "joint."))}
    head = torch.randn(PIECES + 1, WIDTH, 1, generator=torch.Generator().manual_seed(2))
    tensors |= {"decoder.decoder_layers.0.weight": head, "decoder.decoder_layers.0.bias": head[:, 0, 0]}
    del said["joint"]
    said["decoder"] = {"num_classes": PIECES, "vocabulary": ["a"] * PIECES}
    path = write(tmp_path / "model.nemo", said, tensors)
    model, features = as_transducer(read_foreign(path)), features_of([120], 80)[0]
    expected = encoded_by_definition(tensors, said, features)
    logits = F.linear(expected, head[..., 0], head[:, 0, 0])
    encoded, lengths = model.encode(features, torch.tensor([120]))
    torch.testing.assert_close(model.joiner.logits(encoded), logits.roll(1, -1), atol=1e-5, rtol=1e-5)
    said_labels = [label for label, _ in groupby(logits[0].argmax(-1).tolist()) if label != PIECES]
    assert [label - 1 for label in greedy(model, encoded, lengths)[0].ids] == said_labels
    said["decoder"]["num_classes"] = 7
    with pytest.raises(UserError, match=f"decoder.num_classes=7 cannot be imported; its tokenizer has {PIECES} pieces"):
        read_foreign(write(tmp_path / "other.nemo", said, tensors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "nemo.EncDecCTCModel"}, "target=EncDecCTCModel cannot be imported; give a model with Sentence"),
        ({"target": "nemo.EncDecMultiTaskModel"}, "target=EncDecMultiTaskModel cannot be imported"),
        ({"tokenizer": None}, "labels=characters cannot be imported"),
        ({"tokenizer__type": "wpe"}, "tokenizer.type=wpe cannot be imported"),
        ({"tokenizer__type": "agg"}, "tokenizer.type=agg cannot be imported"),
        ({"preprocessor__window_stride": 0.02}, "preprocessor.window_stride=0.02 cannot be imported"),
        ({"preprocessor__normalize": "all_features"}, "preprocessor.normalize=all_features cannot be imported"),
        ({"encoder__subsampling": "vggnet"}, "encoder.subsampling=vggnet cannot be imported"),
        ({"encoder__subsampling_factor": 8}, "encoder.subsampling_factor=8 cannot be imported; with striding"),
        ({"encoder__self_attention_model": "rel_pos_local_attn"}, "self_attention_model=rel_pos_local_attn cannot be"),
        (
            {"encoder__att_context_size": [70, 13]},
            r"att_context_size=\[70, 13\] cannot be imported; .* whole",
        ),
        ({"encoder__causal_downsampling": True}, "causal_downsampling=True cannot be imported"),
        ({"encoder__reduction": "pooling"}, "encoder.reduction=pooling cannot be imported"),
        ({"encoder__conv_norm_type": "group_norm4"}, "conv_norm_type=group_norm4 cannot be imported"),
        ({"encoder__d_model": -1}, "encoder.d_model=-1 is no size"),
        ({"encoder__n_heads": 3}, "model.heads=3 does not divide"),
        ({"encoder__n_layers": 3}, "has no tensor encoder.layers.2"),
        ({"decoder__normalization_mode": "layer"}, "decoder.normalization_mode=layer cannot be imported"),
        ({"decoder__vocab_size": 31}, "decoder.vocab_size=31 cannot be imported; its tokenizer has 30 pieces"),
        ({"decoder___target_": "nemo.StatelessTransducerDecoder"}, "_target_=StatelessTransducerDecoder cannot be"),
        ({"joint__num_extra_outputs": 5}, "joint.num_extra_outputs=5 cannot be imported; .* names 0 durations"),
        ({"decoding": {"durations": [0, 1]}}, "num_extra_outputs=0 cannot be imported; .* names 2 durations"),
        (
            {"model_defaults": {"tdt_durations": [0, 2]}},
            r"tdt_durations=\[0, 2\] cannot be imported; durations of 0, 1",
        ),
        ({"joint__jointnet__activation": "sigmoid"}, "joint.jointnet.activation=sigmoid cannot be imported"),
    ],
)
def test_what_cannot_be_represented_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.nemo", description(**change), weights(description()))
    with pytest.raises(UserError, match=message):
        read_foreign(path).weights()


def test_every_tensor_is_used_or_known(tmp_path: Path) -> None:
    said = description()
    path = write(tmp_path / "model.nemo", said, weights(said) | {"encoder.adapter.weight": torch.ones(2)})
    with pytest.raises(UserError, match=r"no place for: encoder\.adapter\.weight"):
        read_foreign(path).weights()
    tensors = weights(said)
    tensors["joint.enc.weight"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"NaN or infinity: joiner\.encoder\.weight"):
        read_foreign(write(path, said, tensors)).weights()
    tensors["joint.enc.weight"] = torch.zeros(JOINER, WIDTH + 1)
    with pytest.raises(UserError, match=r"another shape or type, such as joiner\.encoder\.weight"):
        read_foreign(write(path, said, tensors)).weights()


class Runs:
    def __reduce__(self):
        return eval, ("1 / 0",)


def test_nothing_in_the_archive_runs_or_leaves_it(tmp_path: Path) -> None:
    said = description()
    hostile = io.BytesIO()
    torch.save({"encoder": Runs()}, hostile)
    path = write(tmp_path / "model.nemo", said, {}, **{"./model_weights.ckpt": hostile.getvalue()})
    with pytest.raises(UserError, match=r"more than tensors and plain data"):
        read_foreign(path).weights()
    with pytest.raises(UserError, match=r"holds '\.\./\.\./outside', which is no plain file"):
        read_foreign(write(path, said, weights(said), **{"../../outside": b"x"}))
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("model_config.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match="which is no plain file"):
        read_foreign(path)
    with pytest.raises(UserError, match=r"model_config\.yaml is damaged"):
        read_foreign(
            write(path, said, weights(said), **{"./model_config.yaml": b"!!python/object/apply:os.system [ls]"})
        )
    with pytest.raises(UserError, match="claims to hold 20 times its own size"):
        read_foreign(write(path, said, {}, "w:gz", **{"./zeros": bytes(10**7)}))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"damaged or no \.nemo archive"):
        read_foreign(path)

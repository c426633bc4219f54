"""An icefall folder gives what transducer_stateless, written out here from its description, computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from speech_model import as_transducer, features_of, sentencepiece_model, write_tokens

from nibble.errors import UserError
from nibble.features.options import FeatureKind, Normalization
from nibble.imports.recognition import is_foreign, read_foreign
from nibble.model.options import Predictor

LABELS, WIDTH, HEADS, INNER, KERNEL, JOINER, LAYERS = 30, 16, 2, 64, 5, 12, 2


def weights() -> dict[str, torch.Tensor]:
    """Random tensors under icefall's names, in its shapes."""
    random = torch.Generator().manual_seed(0)
    found: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int, bias: bool = True) -> None:
        fan_in = max(1, torch.Size(shape[1:]).numel())
        found[f"{name}.weight"] = torch.randn(shape, generator=random) / fan_in**0.5
        if bias:
            found[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=random)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = 1 + 0.1 * torch.randn(WIDTH, generator=random)
        found[f"{name}.bias"] = 0.1 * torch.randn(WIDTH, generator=random)

    add("encoder.encoder_embed.conv.0", 6, 1, 3, 3)
    add("encoder.encoder_embed.conv.2", 6, 6, 3, 3)
    add("encoder.encoder_embed.out", WIDTH, 6 * 19)
    for layer in range(LAYERS):
        at = f"encoder.encoder.layers.{layer}"
        for name in ("feed_forward_macaron", "feed_forward"):
            add(f"{at}.{name}.0", INNER, WIDTH)
            add(f"{at}.{name}.3", WIDTH, INNER)
        for name in ("norm_ff_macaron", "norm_ff", "norm_mha", "norm_conv", "norm_final"):
            norm(f"{at}.{name}")
        add(f"{at}.self_attn.in_proj", 3 * WIDTH, WIDTH)
        add(f"{at}.self_attn.out_proj", WIDTH, WIDTH)
        add(f"{at}.self_attn.linear_pos", WIDTH, WIDTH, bias=False)
        for name in "uv":
            found[f"{at}.self_attn.pos_bias_{name}"] = torch.randn(HEADS, WIDTH // HEADS, generator=random)
        add(f"{at}.conv_module.pointwise_conv1", 2 * WIDTH, WIDTH, 1)
        add(f"{at}.conv_module.depthwise_conv", WIDTH, 1, KERNEL)
        norm(f"{at}.conv_module.norm")
        add(f"{at}.conv_module.pointwise_conv2", WIDTH, WIDTH, 1)
    norm("encoder.after_norm")
    add("encoder.encoder_output_layer.1", JOINER, WIDTH)
    found["decoder.embedding.weight"] = torch.randn(LABELS, JOINER, generator=random)
    found["decoder.embedding.weight"][0] = 0
    add("decoder.conv", JOINER, 1, 2, bias=False)
    add("joiner.output_linear", LABELS, JOINER)
    return found


def tokenizer() -> bytes:
    """As icefall trains them: blank 0, sos/eos 1, unknown 2."""
    return sentencepiece_model(LABELS, unk_id=2, user_defined_symbols=["<blk>", "<sos/eos>"])


def write(root: Path, tensors: dict[str, Any]) -> Path:
    (root / "exp").mkdir(parents=True, exist_ok=True)
    (root / "data" / "lang_bpe_500").mkdir(parents=True, exist_ok=True)
    torch.save({"model": tensors}, root / "exp" / "pretrained.pt")
    (root / "data" / "lang_bpe_500" / "bpe.model").write_bytes(tokenizer())
    return root


def encoded_by_definition(t: dict[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """One utterance (1, T, F) through icefall's encoder, after_norm included."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, t[f"{name}.weight"].flatten(1), t.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"])

    def feed_forward(x: torch.Tensor, at: str, of_norm: str) -> torch.Tensor:
        return x + 0.5 * linear(F.silu(linear(norm(x, of_norm), f"{at}.0")), f"{at}.3")

    x = features.unsqueeze(1)
    for number in (0, 2):
        at = f"encoder.encoder_embed.conv.{number}"
        x = F.conv2d(x, t[f"{at}.weight"], t[f"{at}.bias"], stride=2).relu()
    x = linear(x.transpose(1, 2).flatten(2), "encoder.encoder_embed.out") * WIDTH**0.5
    frames = x.size(1)
    distances = torch.arange(frames - 1, -frames, -1.0)
    rates = torch.exp(torch.arange(0, WIDTH, 2) * -(torch.log(torch.tensor(10_000.0)) / WIDTH))
    angles = distances[:, None] * rates
    positions = torch.stack((angles.sin(), angles.cos()), 2).flatten(1)
    for layer in range(LAYERS):
        at = f"encoder.encoder.layers.{layer}"
        x = feed_forward(x, f"{at}.feed_forward_macaron", f"{at}.norm_ff_macaron")
        packed = linear(norm(x, f"{at}.norm_mha"), f"{at}.self_attn.in_proj").chunk(3, 2)
        query, key, value = (part.view(frames, HEADS, -1).transpose(0, 1) for part in packed)
        placed = linear(positions, f"{at}.self_attn.linear_pos").view(-1, HEADS, WIDTH // HEADS).transpose(0, 1)
        u, v = (t[f"{at}.self_attn.pos_bias_{name}"][:, None] for name in "uv")
        by_distance = (query + v) @ placed.transpose(1, 2)
        i, j = torch.arange(frames)[:, None], torch.arange(frames)
        scores = (query + u) @ key.transpose(1, 2) + by_distance[:, i, frames - 1 - (i - j)]
        attended = ((scores / (WIDTH // HEADS) ** 0.5).softmax(2) @ value).transpose(0, 1).flatten(1)
        x = x + linear(attended, f"{at}.self_attn.out_proj")
        conv = f"{at}.conv_module"
        y = F.glu(linear(norm(x, f"{at}.norm_conv"), f"{conv}.pointwise_conv1"), 2).transpose(1, 2)
        filters = t[f"{conv}.depthwise_conv.weight"], t[f"{conv}.depthwise_conv.bias"]
        y = F.conv1d(y, *filters, padding=KERNEL // 2, groups=WIDTH).transpose(1, 2)
        x = x + linear(F.silu(norm(y, f"{conv}.norm")), f"{conv}.pointwise_conv2")
        x = feed_forward(x, f"{at}.feed_forward", f"{at}.norm_ff")
        x = norm(x, f"{at}.norm_final")
    return norm(x, "encoder.after_norm")


def logits_by_definition(t: dict[str, torch.Tensor], encoded: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """(T', U + 1, V): a filter of each channel over the last two labels, which begin with two blanks."""
    embedded = F.embedding(torch.tensor([0, 0, *labels]), t["decoder.embedding.weight"]).t()[None]
    predicted = F.conv1d(embedded, t["decoder.conv.weight"], groups=JOINER)[0].t()  # (U + 1, J)
    projected = F.linear(encoded, t["encoder.encoder_output_layer.1.weight"], t["encoder.encoder_output_layer.1.bias"])[
        0
    ]
    both = torch.tanh(projected[:, None] + predicted)
    return F.linear(both, t["joiner.output_linear.weight"], t["joiner.output_linear.bias"])


@pytest.mark.parametrize("prefix", ["", "module."])
@torch.no_grad()
def test_encoder_and_logits_are_icefalls(tmp_path: Path, prefix: str) -> None:
    tensors = weights()
    root = write(tmp_path / "model", {f"{prefix}{name}": tensor for name, tensor in tensors.items()})
    assert is_foreign(root)
    foreign = read_foreign(root)
    assert foreign.model.predictor is Predictor.stateless_linear
    assert foreign.features.kind is FeatureKind.kaldi
    assert foreign.features.normalization is Normalization.none
    model = as_transducer(foreign)
    features, lengths = features_of([120, 75], 80)
    encoded, counts = model.encode(features, lengths)
    for row, count in enumerate(counts.tolist()):
        expected = encoded_by_definition(tensors, features[row : row + 1, : lengths[row]])
        torch.testing.assert_close(encoded[row : row + 1, :count], expected, atol=1e-5, rtol=1e-5)
        labels = [4, 9, 2]
        found = model.join(encoded[row : row + 1, :count], model.predict(torch.tensor([labels])))[0]
        torch.testing.assert_close(found, logits_by_definition(tensors, expected, labels), atol=1e-5, rtol=1e-5)


def test_the_tokenizer_is_theirs_with_unknown_at_2(tmp_path: Path) -> None:
    tokenizer = read_foreign(write(tmp_path, weights())).tokenizer
    assert tokenizer.pieces([0, 1, 2]) == ["<blk>", "<sos/eos>", "<unk>"]
    assert tokenizer.decode(tokenizer.encode("STOP GOING")) == "STOP GOING"
    assert tokenizer.unknown("STOP Ü") == {"Ü"}


def test_without_bpe_model_its_list_of_symbols_is_enough(tmp_path: Path) -> None:
    root = write(tmp_path, weights())
    expected = read_foreign(root).tokenizer
    model = root / "data" / "lang_bpe_500" / "bpe.model"
    model.unlink()
    write_tokens(model.parent, [*expected.pieces(range(LABELS)), "#0"])
    tokenizer = read_foreign(root).tokenizer
    assert tokenizer.pieces(range(LABELS)) == expected.pieces(range(LABELS))
    for text in ("STOP GOING", "ONE TWO", "LEFT"):
        assert tokenizer.encode(text) == expected.encode(text)
    (model.parent / "tokens.txt").unlink()
    with pytest.raises(UserError, match=r"neither bpe\.model nor tokens\.txt"):
        read_foreign(root)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.encoders.0.layers.0.bypass.weight", "Zipformer.*cannot be imported; transducer_stateless,"),
        ("encoder.encoder.layers.0.feed_forward.0.weight_scale", "reworked Conformer"),
        ("joiner.inner_linear.weight", "pruned_transducer_stateless, whose joiner has two layers"),
        ("decoder.rnn.weight_ih_l0", "LSTM transducer"),
        ("encoder.encoder.layers.0.conv_module.norm.running_mean", "feature batch norm"),
        ("encoder.extra.weight", r"no place for: encoder\.extra\.weight"),
    ],
)
def test_what_cannot_be_represented_is_refused(tmp_path: Path, name: str, message: str) -> None:
    root = write(tmp_path, weights() | {name: torch.ones(2)})
    with pytest.raises(UserError, match=message):
        read_foreign(root).weights()


def test_a_row_of_blank_that_is_not_zero_is_refused(tmp_path: Path) -> None:
    tensors = weights()
    tensors["decoder.embedding.weight"][0] = 1
    with pytest.raises(UserError, match="row of blank that is not zero"):
        read_foreign(write(tmp_path, tensors)).weights()


@pytest.mark.parametrize("saved", [[1], {"model": {"a": 1}}, {"optimizer": {}}])
def test_another_file_of_that_name(tmp_path: Path, saved: object) -> None:
    torch.save(saved, tmp_path / "pretrained.pt")
    with pytest.raises(UserError, match="has no weights under 'model'"):
        read_foreign(tmp_path)

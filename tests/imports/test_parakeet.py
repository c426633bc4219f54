"""A random Parakeet written by transformers computes the same after its import."""

import json
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from speech_model import as_transducer, features_of, greedy_ids, sentencepiece_model

from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.imports.parakeet import Parakeet
from nibble.imports.recognition import read_foreign
from nibble.model.decoding import greedy
from nibble.model.fused_loss import fused_transducer_loss
from nibble.model.targets import Targets
from nibble.quant.convert import prepare, set_precision
from nibble.quant.numerics import quantize_weight
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec
from nibble.runs.frozen import frozen_copy

transformers = pytest.importorskip("transformers", reason="transformers: pip install -e '.[foundation]'")

PIECES, WIDTH = 30, 32
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_kernel_size": 9,
    "subsampling_conv_channels": 16,
    "num_mel_bins": 80,
}


def random_model(kind: str = "RNNT", **encoder: object):
    """With statistics, biases and norms that are not those of the start."""
    torch.manual_seed(0)
    config = getattr(transformers, f"Parakeet{kind}Config")(
        vocab_size=PIECES + 1,
        blank_token_id=PIECES,
        decoder_hidden_size=24,
        num_decoder_layers=2,
        encoder_config=transformers.ParakeetEncoderConfig(**(SIZES | encoder)),
    )
    model = getattr(transformers, f"ParakeetFor{kind}")(config).eval()
    random = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "encode_positions" not in name:
            tensor += 0.05 * torch.randn(tensor.shape, generator=random).abs()
    for tensor in (*model.decoder.parameters(), model.joint.head.weight):  # so that labels depend on those before
        tensor.data.normal_(std=0.4, generator=random)
    return model


def write(folder: Path, model, tokenizer: bytes | None = None) -> Path:
    model.save_pretrained(folder)
    folder.joinpath("tokenizer.model").write_bytes(tokenizer or sentencepiece_model(PIECES))
    return folder


@pytest.fixture(scope="module")
def original():
    return random_model()


@pytest.fixture(scope="module")
def folder(original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("parakeet"), original)


@torch.no_grad()
def test_encoder_logits_and_text_are_those_of_transformers(original, folder: Path) -> None:
    foreign = read_foreign(folder)
    assert foreign.kind == "Hugging Face ParakeetForRNNT"
    model = as_transducer(foreign)
    features, lengths = features_of([161, 90], 80)
    mask = torch.arange(161) < lengths.unsqueeze(1)
    theirs = original.get_audio_features(features, mask)
    encoded, counts = model.encode(features, lengths)
    labels = torch.tensor([[3, 7, 9], [5, 6, 0]])
    logits = model(features, lengths, labels + 1, torch.tensor([3, 2]))[0]
    start = torch.full((2, 1), PIECES)
    expected = original(encoder_outputs=theirs, decoder_input_ids=torch.cat((start, labels), 1))
    for row, count in enumerate(counts.tolist()):
        assert count == int(theirs.attention_mask[row].sum())
        torch.testing.assert_close(encoded[row, :count], theirs.last_hidden_state[row, :count], atol=1e-5, rtol=1e-5)
        rolled = expected.logits[row, :count].roll(1, -1)  # blank first
        torch.testing.assert_close(logits[row, :count], rolled, atol=1e-5, rtol=1e-5)

        def logits_of(frame: int, said: list[int], row: int = row) -> torch.Tensor:
            predicted = original.decoder(torch.tensor([[PIECES, *said]]))[0, -1]
            return original.joint(predicted, theirs.pooler_output[row, frame])

        wanted = greedy_ids(logits_of, count, blank=PIECES)
        found = greedy(model, encoded[row : row + 1, :count], counts[row : row + 1])[0].ids
        assert [label - 1 for label in found] == wanted
        assert len(set(wanted)) > 3
        pieces = SentencePieceProcessor(model_proto=sentencepiece_model(PIECES))
        assert foreign.tokenizer.decode(found) == pieces.decode(wanted)


@torch.no_grad()
def test_a_transducer_of_durations_has_the_logits_loss_and_text_of_transformers(tmp_path: Path) -> None:
    from transformers.loss.loss_tdt import tdt_loss

    original = random_model("TDT")
    foreign = read_foreign(write(tmp_path, original))
    assert foreign.kind == "Hugging Face ParakeetForTDT"
    model, (features, lengths) = as_transducer(foreign), features_of([161, 90], 80)
    assert model.durations == 5
    theirs = original.get_audio_features(features, torch.arange(161) < lengths.unsqueeze(1))
    encoded, counts = model.encode(features, lengths)
    labels, label_lengths = torch.tensor([[3, 7, 9], [5, 6, 0]]), torch.tensor([3, 2])
    said = torch.cat((torch.full((2, 1), PIECES), labels), 1)
    predicted = original.decoder(said)
    joined = original.joint(predicted[:, None], theirs.pooler_output[:, :, None])
    of_labels, of_durations = joined.split((PIECES + 1, 5), 3)
    found = model.join(encoded, model.predict(labels + 1))
    for row, count in enumerate(counts.tolist()):
        expected = torch.cat((of_labels.roll(1, 3), of_durations), 3)[row, :count]
        torch.testing.assert_close(found[row, :count], expected, atol=1e-5, rtol=1e-5)
    want = tdt_loss(of_labels, of_durations, labels, counts, label_lengths, PIECES, list(range(5)), reduction="sum")
    loss = fused_transducer_loss(
        model.joiner, encoded, model.predict(labels + 1), Targets(counts, labels + 1, label_lengths)
    )
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-5)
    heard = 0
    for row, length in enumerate(lengths.tolist()):
        one, mask = features[row : row + 1, :length], torch.ones(1, length)
        generated = original.generate(one, attention_mask=mask, decoder_start_token_id=PIECES)
        wanted = [label for label in generated.sequences[0].tolist() if label != PIECES]
        ids = greedy(model, encoded[row : row + 1], counts[row : row + 1], max_symbols_per_frame=100)[0].ids
        assert [label - 1 for label in ids] == wanted
        heard += len(set(wanted))
    assert heard > 2


@torch.no_grad()
def test_a_ctc_network_is_that_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = transformers.ParakeetEncoderConfig(**SIZES)
    config = transformers.ParakeetCTCConfig(vocab_size=PIECES + 1, pad_token_id=PIECES, encoder_config=encoder)
    original = transformers.ParakeetForCTC(config).eval()
    foreign = read_foreign(write(tmp_path, original))
    assert foreign.kind == "Hugging Face ParakeetForCTC"
    model, (features, lengths) = as_transducer(foreign), features_of([161], 80)
    encoded, _ = model.encode(features, lengths)
    expected = original(input_features=features, attention_mask=torch.ones(1, 161)).logits
    torch.testing.assert_close(model.joiner.logits(encoded), expected.roll(1, -1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_features_are_those_of_transformers(folder: Path) -> None:
    """Their values are held against stored ones in tests/features."""
    foreign = read_foreign(folder)
    assert make_features(foreign.features).bins == 80
    assert foreign.features.kind.value == "nemo"
    assert foreign.features.normalization.value == "utterance"


def test_int4_after_the_import_is_int4_of_the_same_weights(original, folder: Path) -> None:
    """Folds move rows and columns or multiply whole weights, so the codes are those of the weights as they were."""
    model = as_transducer(read_foreign(folder))
    prepare(model, QuantConfig("int4", [Rule(weight=WeightSpec(4), activation=ActivationSpec())]))
    set_precision(model, Precision.rules)
    ours = frozen_copy(model).state_dict()
    theirs = {
        name: quantize_weight(tensor.flatten(1) if "pointwise" in name else tensor, WeightSpec(4), name).codes
        for name, tensor in original.state_dict().items()
        if tensor.dim() > 1 and tensor.is_floating_point() and "encode_positions" not in name
    }
    block, layer = "encoder.blocks.1", "encoder.layers.1"
    for mine, name in {
        f"{block}.attention.query": f"{layer}.self_attn.q_proj",
        f"{block}.attention.position": f"{layer}.self_attn.relative_k_proj",
        f"{block}.convolution.pointwise1": f"{layer}.conv.pointwise_conv1",
        f"{block}.convolution.depthwise": f"{layer}.conv.depthwise_conv",
        f"{block}.feed_forward2.projection": f"{layer}.feed_forward2.linear2",
        "encoder.subsampling.separable.1.depthwise": "encoder.subsampling.layers.5",
        "joiner.encoder": "encoder_projector",
        "joiner.predictor": "decoder.decoder_projector",
    }.items():
        assert torch.equal(ours[f"{mine}.weight_codes"], theirs[f"{name}.weight"]), mine
    assert torch.equal(ours["predictor.upper.0.weight_hh_l0_codes"], theirs["decoder.lstm.weight_hh_l1"])
    for mine, name in (("joiner.output", "joint.head"), ("predictor.embedding", "decoder.embedding")):
        assert torch.equal(ours[f"{mine}.weight_codes"], theirs[f"{name}.weight"].roll(1, 0))
    flattened = theirs["encoder.subsampling.linear.weight"].view(WIDTH, 16, 10).transpose(1, 2).flatten(1)
    # Multiplied by the square root of the width, a value that is halfway between two codes may fall to the other side.
    differing = ours["encoder.subsampling.output.weight_codes"] != flattened
    assert differing.float().mean() < 1e-3


def test_absent_biases_are_zeros_and_an_unscaled_input_is_not_scaled(tmp_path: Path) -> None:
    original = random_model(attention_bias=False, convolution_bias=False, scale_input=False, subsampling_factor=4)
    model = as_transducer(read_foreign(write(tmp_path / "model", original)))
    assert not model.encoder.blocks[0].attention.query.bias.any()
    features, lengths = features_of([60], 80)
    with torch.no_grad():
        expected = original.get_audio_features(features, torch.ones(1, 60, dtype=torch.bool)).last_hidden_state
        # Small values before the first norm, so more of their rounding is seen than above.
        torch.testing.assert_close(model.encode(features, lengths)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_vocabulary_of_tokenizer_json(original, tmp_path: Path) -> None:
    """Pieces and merges give the tokenizer that SentencePiece's own file gives."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers

    source = SentencePieceProcessor(model_proto=sentencepiece_model(PIECES))
    pieces = [source.id_to_piece(number) for number in range(PIECES)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    merges = [
        (whole[:cut], whole[cut:])
        for whole in pieces
        for cut in range(1, len(whole))
        if whole[:cut] in vocab and whole[cut:] in vocab
    ]
    fast = Fast(models.BPE(vocab, merges, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.decoder = decoders.Metaspace()
    write(tmp_path, original)
    (tmp_path / "tokenizer.model").unlink()
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = read_foreign(tmp_path).tokenizer
    assert tokenizer.pieces(range(PIECES + 1)) == ["<blk>", *pieces]
    for text in ("STOP GOING UP", "ONE TWO", "LEFT", "NO"):
        assert [label - 1 for label in tokenizer.encode(text)] == fast.encode(text).ids == source.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "parakeet_tdt", "durations": [1, 2]}, r"durations=\[1, 2\] cannot be imported; durations of 0"),
        ({"model_type": "parakeet_tdt"}, "2 have another shape or type, such as joiner.output.bias"),
        ({"model_type": "whisper"}, "model_type=whisper cannot be imported; ParakeetForRNNT"),
        ({"blank_token_id": 3}, "blank_token_id=3 cannot be imported"),
        ({"vocab_size": "many"}, "vocab_size='many' is no size"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu cannot be imported; joiners with relu or tanh"),
        ({"encoder_config": {"subsampling_factor": 16}}, "encoder_config.subsampling_factor=16 cannot be imported"),
        ({"encoder_config": {"num_hidden_layers": 3}}, "has no tensor encoder.layers.2"),
        ({"encoder_config": {"num_hidden_layers": 10**6}}, "says that it has 1000000 layers"),
        ({"encoder_config": {"intermediate_size": 65}}, "65 are no multiple of the width 32"),
        ({"encoder_config": 7}, "no section encoder_config"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    original, folder: Path, tmp_path: Path, change: dict, message: str
) -> None:
    write(tmp_path / "model", original)
    file = tmp_path / "model" / "config.json"
    said = json.loads(file.read_text())
    for name, value in change.items():
        said[name] = said[name] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(said))
    with pytest.raises(UserError, match=message):
        read_foreign(tmp_path / "model").weights()


def test_a_tensor_without_place_is_said(original, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write(tmp_path / "model", original)
    file = tmp_path / "model" / "model.safetensors"
    save_file(load_file(file) | {"adapter.weight": torch.ones(2)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"no place for: adapter\.weight"):
        read_foreign(tmp_path / "model").weights()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        read_foreign(tmp_path / "model").weights()


def test_the_card_of_the_folder_names_the_licence(folder: Path, tmp_path: Path, original) -> None:
    assert "licence: not stated" in read_foreign(folder).origin
    write(tmp_path, original)
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: cc-by-4.0\n---\n# A model\n")
    assert read_foreign(tmp_path).origin.endswith("licence: cc-by-4.0")


def test_a_bundle_of_ours_is_no_parakeet(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    (tmp_path / "tokens.txt").write_text("")
    assert not Parakeet().recognises(tmp_path)

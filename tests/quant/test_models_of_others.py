"""Speech models of transformers and torchaudio, small and random: forward, backward, freeze, save and load."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.quant.convert import freeze, prepare, quantized_modules, set_precision
from nibble.quant.rules import FLOAT_BITS, coverage, quantized_share
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec
from nibble.quant.summary import summary

pytest.importorskip("transformers", reason="needs the extra foundation")

INT4 = QuantConfig("int4", [Rule("**", WeightSpec(4), ActivationSpec(8))])
SAMPLES = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

Made = tuple[nn.Module, dict[str, Any]]  # a model, and what its forward takes


def on_samples(model: Any, config: Any, **options: Any) -> Made:
    """A model of transformers that hears samples, with its default SpecAugment, which writes into the features."""
    front = {"conv_dim": (16, 16), "conv_kernel": (10, 4), "conv_stride": (8, 4), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
    still = {"layerdrop": 0.0, "ctc_zero_infinity": True, "vocab_size": 12}
    return model(config(**SIZES, **front, **positions, **still, **options)), {"input_values": SAMPLES}


def wav2vec2() -> Made:
    from transformers.models.wav2vec2 import Wav2Vec2Config, Wav2Vec2ForCTC

    return on_samples(Wav2Vec2ForCTC, Wav2Vec2Config)


def wav2vec2_conformer() -> Made:
    from transformers.models.wav2vec2_conformer import Wav2Vec2ConformerConfig, Wav2Vec2ConformerForCTC

    return on_samples(Wav2Vec2ConformerForCTC, Wav2Vec2ConformerConfig)


def hubert() -> Made:
    from transformers.models.hubert import HubertConfig, HubertForCTC

    return on_samples(HubertForCTC, HubertConfig, do_stable_layer_norm=True, feat_extract_norm="layer")


def wav2vec2_bert() -> Made:
    from transformers.models.wav2vec2_bert import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

    config = Wav2Vec2BertConfig(
        vocab_size=12,
        **SIZES,
        feature_projection_input_dim=20,
        layerdrop=0.0,
        ctc_zero_infinity=True,
    )
    return Wav2Vec2BertForCTC(config), {"input_features": SAMPLES.view(2, -1, 20)}


def parakeet() -> Made:
    from transformers.models.parakeet import ParakeetCTCConfig, ParakeetEncoderConfig, ParakeetForCTC

    encoder = ParakeetEncoderConfig(
        **SIZES,
        subsampling_conv_channels=16,
        num_mel_bins=40,
        layerdrop=0.0,
    )
    config = ParakeetCTCConfig(vocab_size=12, pad_token_id=0, encoder_config=encoder.to_dict())
    features = SAMPLES.view(2, -1, 40)
    return ParakeetForCTC(config), {"input_features": features, "attention_mask": torch.ones(features.shape[:2])}


class Conformer(nn.Module):
    """torchaudio's Conformer, a third of whose weights are those of `nn.MultiheadAttention`."""

    def __init__(self) -> None:
        from torchaudio.models import Conformer

        super().__init__()
        self.encoder = Conformer(40, 4, 64, 2, 5)
        self.head = nn.Linear(40, 12)

    def forward(self, input: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        encoded, lengths = self.encoder(input, torch.full((len(input),), input.shape[1]))
        logits = self.head(encoded)
        if labels is None:
            return {"logits": logits}
        sizes = torch.full((len(labels),), labels.shape[1])
        loss = nn.functional.ctc_loss(logits.log_softmax(-1).transpose(0, 1), labels, lengths, sizes)
        return {"logits": logits, "loss": loss}


def torchaudio_conformer() -> Made:
    return Conformer(), {"input": SAMPLES.view(2, -1, 40)}


class Wav2Vec2(nn.Module):
    """torchaudio's wav2vec 2.0, whose convolution of positions is grouped and weight-normed."""

    def __init__(self) -> None:
        from torchaudio.models import wav2vec2_model

        super().__init__()
        front = [(16, 10, 8), (16, 4, 4)]  # channels, kernel and stride
        positions = {"encoder_pos_conv_kernel": 8, "encoder_pos_conv_groups": 4}
        sizes = {"encoder_embed_dim": 32, "encoder_num_layers": 2, "encoder_num_heads": 2}
        dropouts = ("projection", "attention", "ff_interm")
        self.model = wav2vec2_model(
            extractor_mode="group_norm",
            extractor_conv_layer_config=front,
            extractor_conv_bias=False,
            encoder_ff_interm_features=64,
            encoder_dropout=0.1,
            encoder_layer_norm_first=False,
            encoder_layer_drop=0.0,
            aux_num_out=12,
            **{f"encoder_{name}_dropout": 0.1 for name in dropouts},
            **sizes,
            **positions,
        )

    def forward(self, waveforms: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits, _ = self.model(waveforms)
        if labels is None:
            return {"logits": logits}
        lengths, sizes = (torch.full((len(logits),), x.shape[1]) for x in (logits, labels))
        loss = nn.functional.ctc_loss(logits.log_softmax(-1).transpose(0, 1), labels, lengths, sizes)
        return {"logits": logits, "loss": loss}


def torchaudio_wav2vec2() -> Made:
    return Wav2Vec2(), {"waveforms": SAMPLES}


MODELS = [wav2vec2, wav2vec2_conformer, hubert, wav2vec2_bert, parakeet, torchaudio_conformer, torchaudio_wav2vec2]


@pytest.mark.parametrize("make", MODELS)
def test_trained_frozen_saved_and_loaded(make: Any, tmp_path: Path) -> None:
    """Every weight but those of norms becomes four bits; a frozen and a loaded model give the same logits, bit for bit.

    The float logits are the model's own, so a forward of a subclass (Parakeet's head transposes) is not lost.
    """
    torch.manual_seed(0)
    model, inputs = make()
    untouched = copy.deepcopy(model).eval()
    matrices = {name for name, parameter in model.named_parameters() if parameter.dim() > 1 and "bias" not in name}
    expected = untouched(**inputs)["logits"]
    prepare(model, INT4)
    assert torch.equal(model.eval()(**inputs)["logits"], expected), "in float"
    set_precision(model, Precision.int8)
    near = model(**inputs)["logits"]
    assert (near - expected).norm() < 0.1 * expected.norm()

    model.train()
    for precision, blend in [(Precision.int8, 1.0), (Precision.rules, 0.5), (Precision.rules, 1.0)]:
        set_precision(model, precision, blend)
        loss = model(**inputs, labels=LABELS)["loss"]
        model.zero_grad()
        loss.backward()
        for name, layer in quantized_modules(model).items():
            for weight in layer.parameters(recurse=False):
                assert weight.grad is None or weight.grad.isfinite().all(), name
        assert any(weight.grad.abs().sum() > 0 for weight in model.parameters() if weight.grad is not None)

    model.eval()
    set_precision(model, Precision.rules)
    with torch.no_grad():
        trained = model(**inputs)["logits"]
        freeze(model)
        assert torch.equal(model(**inputs)["logits"], trained)
    assert quantized_share(coverage(model)) > 0.9

    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "frozen")
    prepare(untouched, INT4)
    set_precision(untouched, Precision.rules)
    freeze(untouched)
    untouched.load_state_dict(load_file(tmp_path / "frozen"))
    with torch.no_grad():
        assert torch.equal(untouched(**inputs)["logits"], trained)
    said = summary(untouched).splitlines()
    assert [line.partition(":")[0] for line in said] == ["int4", "stays in 16 bits"]
    kept = {part.name: part.elements * 2 for part in coverage(untouched) if part.bits == FLOAT_BITS}  # bytes
    assert not kept.keys() & matrices
    total = sum(part.elements * part.bits / 8 for part in coverage(untouched))
    largest = max(kept, key=kept.__getitem__)
    assert f"{largest} {kept[largest] / total:.1%}" in said[1]


def test_what_cannot_keep_its_forward_is_named_before_training() -> None:
    """Whisper's positions are rows of the weight itself, cut out in a forward of their own."""
    from transformers.models.whisper import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 60, "pad_token_id": 0}
    special = {"bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **heads, **special))
    with pytest.raises(UserError, match=r"model.decoder.embed_positions \(WhisperPositionalEmbedding\).*match: "):
        prepare(model, INT4)
    prepare(model, QuantConfig("int4", [Rule("**.embed_positions"), *INT4.rules]))


def test_a_scaled_embedding_stays_scaled() -> None:
    from transformers.models.mbart.modeling_mbart import MBartScaledWordEmbedding

    torch.manual_seed(0)
    model = nn.Sequential(MBartScaledWordEmbedding(10, 8, 0, 5.0))
    labels = torch.arange(10)
    expected = model(labels)
    prepare(model, QuantConfig("int8", [Rule("**", WeightSpec(8))]))
    set_precision(model, Precision.rules)
    assert torch.allclose(model(labels), expected, atol=0.1)  # half a code
    freeze(model)
    assert torch.allclose(model(labels), expected, atol=0.1)  # half a code

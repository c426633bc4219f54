"""Random encoders of raw samples written by transformers compute the same after their import, and are trained on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nibble.commands.import_model import main
from nibble.composition import training_config
from nibble.errors import UserError
from nibble.features.options import Normalization
from nibble.imports.adoption import adopted
from nibble.imports.recognition import read_foreign
from nibble.model.transducer import Transducer
from nibble.runs.checkpoint import load_checkpoint
from nibble.training.initialisation import load_weights
from nibble.training.run import train

transformers = pytest.importorskip("transformers", reason="needs the extra foundation")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
FRONT = {"conv_dim": [16, 16, 16], "conv_kernel": [10, 4, 2], "conv_stride": [8, 4, 2], "num_feat_extract_layers": 3}
POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "wav2vec 2.0": (transformers.Wav2Vec2ForCTC, transformers.Wav2Vec2Config, {}),
    "large wav2vec 2.0": (transformers.Wav2Vec2Model, transformers.Wav2Vec2Config, LARGE),
    "HuBERT": (transformers.HubertModel, transformers.HubertConfig, {}),
}


def written(folder: Path, kind: str) -> Any:
    """The model of transformers in eval mode, saved in `folder`."""
    torch.manual_seed(0)
    make, describe, options = KINDS[kind]
    model = make(describe(**SIZES, **FRONT, **POSITIONS, **options)).eval()
    for tensor in model.state_dict().values():  # biases other than zero
        tensor += 0.05 * torch.rand_like(tensor)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_encoded_frames_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = written(tmp_path, kind)
    foreign = read_foreign(tmp_path)
    ours = Transducer(foreign.model, foreign.features, 5).eval()
    assert (
        load_weights(ours, tmp_path, [], None).said
        == "init_from has the encoder alone; what comes after it starts fresh"
    )  # type: ignore[arg-type]
    samples = torch.randn(1, 3000)
    expected = getattr(model, "wav2vec2", model)(samples).last_hidden_state
    found, (count,) = ours.encode(samples.unsqueeze(2), torch.tensor([3000]))
    assert count == expected.shape[1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_weights_of_older_versions(tmp_path: Path) -> None:
    written(tmp_path, "HuBERT")
    expected = read_foreign(tmp_path).weights()
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    assert any(name.endswith("weight_g") for name in older)
    save_file(older, tmp_path / "model.safetensors")
    again = read_foreign(tmp_path).weights()
    torch.save(older, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    for found in (again, read_foreign(tmp_path).weights()):
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_training_goes_on_from_it_at_four_bits(tiny_corpus: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "encoder"
    written(folder, "HuBERT")
    words = [
        f"init_from={folder}",
        f"data.corpus_dir={tiny_corpus}",
        "experiment=foundation_int4_24",
        "optimizer.frozen_encoder_steps=1",
        "hardware=cpu",
        "trainer.max_steps=2",
        "records=null",
    ]
    config, said = adopted(training_config([*words, "run_dir=run"]), words)
    assert said is not None
    assert "is a Hugging Face hubert: its encoder, its features (samples), labels of the training transcripts" in said
    record = train(config)
    assert record is not None
    assert record["quant"] == "int4_24"
    before, after = read_foreign(folder).weights(), load_checkpoint(Path("run")).model.state_dict()
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert "init_from has the encoder alone" in capsys.readouterr().err
    assert main([str(folder), str(tmp_path / "imported")]) == 1
    assert "is an encoder without labels" in capsys.readouterr().err


def test_what_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    for number, (options, message) in enumerate(
        (
            ({"hidden_act": "relu"}, "hidden_act=relu cannot be imported"),
            ({"intermediate_size": 65}, r"intermediate_size=65 cannot be imported; multiples of hidden_size=32"),
            ({"adapter_attn_dim": 4}, "adapter_attn_dim=4 cannot be imported"),
            ({"conv_kernel": [10, 4, 1]}, "leave samples unheard"),
        )
    ):
        folder = tmp_path / str(number)
        transformers.Wav2Vec2Config(**{**SIZES, **FRONT, **POSITIONS, **options}).save_pretrained(folder)
        with pytest.raises(UserError, match=message):
            read_foreign(folder)
    for number, (config, message) in enumerate(
        (
            (transformers.Wav2Vec2ConformerConfig(), r"wav2vec2-conformer cannot be imported; .*padding of a batch"),
            (transformers.Wav2Vec2BertConfig(), r"wav2vec2-bert cannot be imported; it hears pairs of mel frames"),
        )
    ):
        config.save_pretrained(tmp_path / f"relative{number}")
        with pytest.raises(UserError, match=message):
            read_foreign(tmp_path / f"relative{number}")
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    transformers.Wav2Vec2Config(**SIZES, **FRONT, **POSITIONS).save_pretrained(folder)
    assert read_foreign(folder).features.normalization is Normalization.none

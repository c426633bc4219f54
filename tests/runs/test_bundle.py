import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nibble import composition
from nibble.config import portable
from nibble.errors import UserError
from nibble.model.decoding import greedy
from nibble.model.options import ModelConfig
from nibble.model.transducer import Transducer
from nibble.quant.convert import freeze, prepare, quantized_modules, set_precision
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import bundle_bytes, read_bundle, unwritten_bytes, write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import Loaded
from nibble.runs.method import Method
from nibble.runs.tensors import WEIGHTS, stored, stored_of


def save(loaded: Loaded, folder: Path) -> int:
    return write_bundle(loaded, folder)


@pytest.mark.parametrize("quant", ["float", "int8", "int4", "int2", "int4_asymmetric", "int4_24", "sparse_24"])
def test_the_size_of_a_bundle_is_known_before_it_is_written(write_run, tmp_path: Path, quant: str) -> None:
    rules = composition.training_config([f"quant={quant}", "run_dir=."]).quant
    loaded = quantize(load_checkpoint(write_run()), rules)
    expected = unwritten_bytes(loaded, stored_of(loaded))
    assert expected == write_bundle(loaded, tmp_path / "bundle")
    (tmp_path / "bundle" / "README.md").write_text("whatever whoever passes it on writes there")
    assert bundle_bytes(tmp_path / "bundle") == expected
    assert stored(tmp_path / "bundle" / WEIGHTS) == stored_of(loaded)


def encode(loaded: Loaded) -> torch.Tensor:
    features = torch.randn(2, 60, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return loaded.model.encode(features, torch.tensor([60, 41]))[0]


@pytest.fixture
def bundle(write_run, tmp_path: Path) -> Path:
    save(load_checkpoint(write_run("int4", "rules")), tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize("quant", ["int8", "int4", "int2", "int4a4"])
def test_what_is_read_is_what_was_trained(write_run, tmp_path: Path, quant: str) -> None:
    trained = load_checkpoint(write_run(quant, "rules"))
    # The few values outside quantized weights are stored in float16; give the trained model values that are.
    for name, tensor in trained.model.state_dict().items():
        owner = trained.model.get_submodule(name.rpartition(".")[0])
        if tensor.is_floating_point() and not (name.rpartition(".")[2].startswith("weight") and hasattr(owner, "rule")):
            tensor.copy_(tensor.half().float())
    size = save(trained, tmp_path / "bundle")
    read = read_bundle(tmp_path / "bundle")
    assert len({file.stat().st_mode for file in (tmp_path / "bundle").iterdir()}) == 1, "all may be read by the same"
    files = [file for file in (tmp_path / "bundle").iterdir() if file.name != "README.md"]
    assert size == bundle_bytes(tmp_path / "bundle") == sum(file.stat().st_size for file in files)
    assert (read.quant, read.method, read.precision, read.step) == (quant, "qat", Precision.rules, 3)
    assert read.config == portable(trained.config)
    assert torch.equal(encode(read), encode(trained))
    lengths = torch.tensor([encode(read).size(1)] * 2)
    ids = [[h.ids for h in greedy(loaded.model, encode(loaded), lengths)] for loaded in (read, trained)]
    assert ids[0] == ids[1]
    freeze(trained.model)
    layers = quantized_modules(read.model)
    assert len(layers) > 10
    for name, layer in quantized_modules(trained.model).items():
        for weight, (codes, scale, _) in layer.frozen_weights().items():
            read_codes, read_scale, _ = layers[name].frozen_weights()[weight]
            assert torch.equal(codes, read_codes)
            assert torch.equal(scale, read_scale)


def test_rounding_the_rest_to_float16_changes_little(write_run, tmp_path: Path) -> None:
    trained = load_checkpoint(write_run("int4", "rules"))
    save(trained, tmp_path / "bundle")
    torch.testing.assert_close(encode(read_bundle(tmp_path / "bundle")), encode(trained), atol=0.05, rtol=0.05)


def test_writing_leaves_the_model_trainable(write_run, tmp_path: Path) -> None:
    trained = load_checkpoint(write_run("int4", "rules"))
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    save(trained, tmp_path / "bundle")
    after = trained.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_float_bundle_is_float32_and_exact(write_run, tmp_path: Path) -> None:
    trained = load_checkpoint(write_run())
    save(trained, tmp_path / "bundle")
    read = read_bundle(tmp_path / "bundle")
    assert (read.quant, read.method) == ("float", "float")
    assert torch.equal(encode(read), encode(trained))
    assert {t.dtype for t in load_file(tmp_path / "bundle" / "model.safetensors").values()} <= {
        torch.float32,
        torch.int64,
    }


def test_the_int8_phase_of_an_int4_run(write_run, tmp_path: Path) -> None:
    trained = load_checkpoint(write_run("int4", "int8"))
    assert trained.quant == "int8"
    save(trained, tmp_path / "bundle")
    read = read_bundle(tmp_path / "bundle")
    assert read.quant == "int8"
    assert {layer.weight_bits for layer in quantized_modules(read.model).values()} == {8}


def test_weights_quantized_without_training(write_run, tmp_path: Path) -> None:
    rule = Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())
    loaded = quantize(load_checkpoint(write_run()), QuantConfig("int4", [rule]))
    save(loaded, tmp_path / "bundle")
    read = read_bundle(tmp_path / "bundle")
    assert (read.quant, read.method) == ("int4", "ptq")
    with pytest.raises(UserError, match="at int4 already; leave quant= out"):
        quantize(read, QuantConfig("int8", [rule]))


def test_a_layer_kept_in_float_is_stored_in_16_bits(write_run, tmp_path: Path) -> None:
    rules = [Rule(match="joiner.**"), Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())]
    loaded = quantize(load_checkpoint(write_run()), QuantConfig("mixed", rules))
    save(loaded, tmp_path / "bundle")
    stored = load_file(tmp_path / "bundle" / "model.safetensors")
    joiner = [tensor for name, tensor in stored.items() if name.startswith("joiner.") and name.endswith(".weight")]
    assert joiner
    assert all(tensor.dtype == torch.float16 for tensor in joiner)
    encode(read_bundle(tmp_path / "bundle"))


def test_a_bundle_replaces_a_bundle_but_nothing_else(bundle: Path, write_run, tmp_path: Path) -> None:
    other = load_checkpoint(write_run("int8", "rules"))
    save(other, bundle)
    assert read_bundle(bundle).quant == "int8"
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other files than a bundle"):
        save(other, tmp_path / "papers")
    assert (tmp_path / "papers" / "thesis.tex").exists()
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files than a bundle, such as notes\.txt, and would be replaced"):
        save(other, bundle)


def test_a_place_that_cannot_be_written_keeps_nothing_behind(write_run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*give another folder"):
        save(load_checkpoint(write_run()), tmp_path / "file" / "bundle")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_keeps_the_old_bundle(bundle: Path, write_run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (bundle / "config.json").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nibble.runs.bundle.save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        save(load_checkpoint(write_run("int8", "rules")), bundle)
    assert (bundle / "config.json").read_text() == before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]


def test_a_value_beyond_float16_is_named(write_run, tmp_path: Path) -> None:
    loaded = load_checkpoint(write_run("int4", "rules"))
    name = next(n for n in loaded.model.state_dict() if n.endswith(".bias"))
    loaded.model.state_dict()[name][0] = 1e6
    with pytest.raises(UserError, match=rf"{name} has values that float16 cannot hold"):
        save(loaded, tmp_path / "bundle")


def test_a_bundle_works_elsewhere(bundle: Path, tmp_path: Path) -> None:
    before = encode(read_bundle(bundle))
    shutil.move(bundle, tmp_path / "moved")
    assert torch.equal(encode(read_bundle(tmp_path / "moved")), before)


def test_the_whole_int4_bundle_of_conformer_l_is_7_7_times_smaller(write_run, tmp_path: Path) -> None:
    loaded = load_checkpoint(write_run())
    shape = ModelConfig("conformer_l", 512, 17, 8, predictor_width=640, joiner_width=640)
    rule = Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())
    config = replace(loaded.config, model=shape, quant=QuantConfig("int4", [rule]))
    with torch.device("meta"):  # its own initialisation takes longer than all the rest
        model = Transducer(shape, config.features, 1024)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    prepare(model, config.quant)
    set_precision(model, Precision.rules)
    large = replace(loaded, config=config, model=model, precision=Precision.rules, method=Method.ptq)
    assert 4 * parameters / unwritten_bytes(large, stored_of(large)) >= 7.7

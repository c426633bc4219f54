"""What comes after an import: a run of ours, its evaluation, bundle and export, and training that starts from it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from speech_model import as_transducer, features_of
from test_icefall import weights as icefall_weights
from test_icefall import write as write_icefall
from test_nemo import VARIANTS, description, weights, write

from nibble.commands.import_model import main
from nibble.composition import training_config
from nibble.data.options import DataOverrides, Tokens
from nibble.data.tokenizer import train_tokenizer
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.hardware import HardwareConfig
from nibble.imports.adoption import adopted
from nibble.imports.recognition import read_foreign
from nibble.model.transducer import Transducer
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.training.initialisation import load_weights
from nibble.training.run import train

INT4 = QuantConfig("int4", [Rule(weight=WeightSpec(4), activation=ActivationSpec())])


@pytest.fixture(scope="module")
def nemo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    said = description(**VARIANTS["fastconformer"])
    return write(tmp_path_factory.mktemp("nemo") / "small.nemo", said, weights(said))


@pytest.fixture(scope="module")
def imported(nemo: Path, tiny_corpus: Path) -> Path:
    """The run folder that the command writes."""
    folder = nemo.parent / "run"
    assert main([str(nemo), str(folder), f"data.corpus_dir={tiny_corpus}"]) == 0
    return folder


def compose(folder: Path, corpus: Path, *words: str):
    given = [f"data.corpus_dir={corpus}", "hardware.workers=0", "hardware.threads=1", "records=null", "logger=csv"]
    return training_config([*given, f"run_dir={folder}", *words])


@torch.no_grad()
def test_the_run_is_the_model(nemo: Path, imported: Path) -> None:
    loaded, model = load_checkpoint(imported), as_transducer(read_foreign(nemo))
    features, lengths = features_of([90], 80)
    assert torch.equal(loaded.model.encode(features, lengths)[0], model.encode(features, lengths)[0])
    assert (loaded.precision.value, loaded.step, loaded.config.model.name) == ("float", 0, "small")
    assert loaded.config.data.tokens is Tokens.kept


def test_the_command_says_what_it_did_and_what_comes_next(nemo: Path, tmp_path: Path, capsys) -> None:
    assert main([str(nemo), str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "small.nemo is a NeMo EncDecRNNTBPEModel, 31 labels, features nemo\n" in said
    assert f"python evaluate.py checkpoint={tmp_path / 'run'}\n" in said
    assert "CC-BY-4.0" in said
    for arguments, message in (
        ([str(nemo), str(tmp_path / "run")], "there is a run in"),
        ([str(tmp_path / "other.nemo"), str(tmp_path / "x")], "other.nemo does not exist; give a .nemo file"),
        ([str(tmp_path), str(tmp_path / "x")], "is no checkpoint of a toolkit that can be imported"),
        ([str(nemo), str(tmp_path / "x"), "model.width=5"], "model.width=5: the checkpoint says model and features"),
    ):
        assert main(arguments) == 1
        assert message in capsys.readouterr().err


def test_python_m_runs_it() -> None:
    done = subprocess.run([sys.executable, "-m", "nibble.import", "--help"], capture_output=True, text=True, check=True)
    assert "python -m nibble.import parakeet.nemo runs/parakeet" in done.stdout


def test_evaluation_quantization_and_bundle(imported: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    options = EvaluateConfig(
        checkpoint=str(imported),
        hardware=HardwareConfig(workers=0),
        data=DataOverrides(corpus_dir=str(tiny_corpus)),
        records=None,
    )
    (result,) = evaluate_checkpoints(options)
    assert result.record.reference_words > 10
    rounded = quantize(load_checkpoint(imported), INT4)
    write_bundle(rounded, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "Weights imported from small.nemo, a NeMo EncDecRNNTBPEModel; licence: " in card
    assert read_bundle(tmp_path / "bundle").tokenizer.model == rounded.tokenizer.model


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Caches appear below the working directory."""
    monkeypatch.chdir(tmp_path)


def test_a_run_that_was_imported_says_its_architecture_too(imported: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    config, said = adopted(compose(tmp_path / "run", tiny_corpus, f"init_from={imported}"), [])
    assert said is not None
    assert "is a run that was imported: its model" in said
    assert (config.model.width, config.features.kind.value, config.data.tokens) == (16, "nemo", Tokens.kept)
    model = Transducer(config.model, config.features, 31)
    assert load_weights(model, imported, [], load_checkpoint(imported).tokenizer).said is None


def test_training_goes_on_from_it_at_four_bits(nemo: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    words = [f"init_from={nemo}", "quant=int4", "schedule=fine_tune", "trainer.max_steps=2"]
    config, said = adopted(compose(tmp_path / "run", tiny_corpus, *words), words)
    assert said is not None
    assert "its model, its features (nemo), its labels" in said
    assert (config.model.width, config.features.kind.value, config.data.tokens) == (16, "nemo", Tokens.kept)
    record = train(config)
    assert record is not None
    assert record["quant"] == "int4"
    trained = load_checkpoint(tmp_path / "run")
    assert trained.tokenizer.model == read_foreign(nemo).tokenizer.model
    assert trained.step == 2
    assert "Weights imported from small.nemo" in (tmp_path / "run" / "bundle" / "README.md").read_text()


def test_an_icefall_model_leaves_for_sherpa_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
    from nibble.commands.export import export
    from nibble.export.options import ExportConfig
    from nibble.inference.onnx_transducer import onnx_transducer

    root = write_icefall(tmp_path / "icefall", icefall_weights())
    assert main([str(root), str(tmp_path / "run")]) == 0
    folder = export(ExportConfig(checkpoint=str(tmp_path / "run"), output=str(tmp_path / "sherpa")))
    loaded, found = load_checkpoint(tmp_path / "run"), onnx_transducer(folder, 1, 30)
    features, lengths = features_of([90], 80)
    with torch.no_grad():
        expected = loaded.model.joiner.project_encoder(loaded.model.encode(features, lengths)[0])
    torch.testing.assert_close(found.encode(features, lengths)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.width=64"], r"model\.width=64 contradicts init_from=.*small\.nemo, which has model\.width=16; leave"),
        (["model=conformer_s"], r"model= with model\.width=144 contradicts .* model\.width=16"),
        (["features=fbank"], r"features= with features\.kind=kaldi contradicts .* features\.kind=nemo"),
        (["model.predictor_layers=1", "model.width=16"], r"model\.predictor_layers=1 contradicts"),
    ],
)
def test_a_typed_option_that_contradicts_the_checkpoint(
    words: list[str], message: str, nemo: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        adopted(compose(tmp_path, tiny_corpus, f"init_from={nemo}", *words), words)


def test_options_of_training_and_those_that_agree_may_be_typed(nemo: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    words = ["model.width=16", "model.dropout=0.3", "model.name=mine"]
    config, _ = adopted(compose(tmp_path, tiny_corpus, f"init_from={nemo}", *words), words)
    assert (config.model.dropout, config.model.name, config.model.layers) == (0.3, "mine", 2)
    assert adopted(compose(tmp_path, tiny_corpus), [])[1] is None


def test_another_tokenizer_keeps_the_rows_of_shared_labels(nemo: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    words = [f"init_from={nemo}", "data.tokens=char"]
    config, said = adopted(compose(tmp_path, tiny_corpus, *words), words)
    assert said is not None
    assert said.endswith("labels of the training transcripts")
    foreign = read_foreign(nemo)
    ours = train_tokenizer(["STOP", "GO QZ"], config.data.tokens, 0, tmp_path)
    torch.manual_seed(0)
    model = Transducer(config.model, config.features, ours.size)
    before = model.predictor.embedding.weight.detach().clone()
    said = load_weights(model, nemo, [], ours).said
    theirs = as_transducer(foreign)
    labels = {piece: label for label, piece in enumerate(foreign.tokenizer.pieces(range(31)))}
    shared = 0
    for label, piece in enumerate(ours.pieces(range(ours.size))):
        row = model.predictor.embedding.weight[label]
        if piece in labels:
            shared += 1
            assert torch.equal(row, theirs.predictor.embedding.weight[labels[piece]])
            assert torch.equal(model.joiner.output.weight[label], theirs.joiner.output.weight[labels[piece]])
        else:
            assert torch.equal(row, before[label])
    assert 4 < shared < ours.size
    assert said == (
        f"{shared} of {ours.size} labels are in the tokenizer of init_from too and keep their weights; "
        f"{ours.size - shared} are new"
    )
    assert torch.equal(model.encoder.blocks[0].attention.query.weight, theirs.encoder.blocks[0].attention.query.weight)

"""One measurement, whatever computes."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from loudness import loud

from nibble.data.options import DataOverrides
from nibble.errors import UserError
from nibble.evaluation import windowed
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import Backend, EvaluateConfig, Search
from nibble.hardware import HardwareConfig
from nibble.inference.windows import windows
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.records import read

CPU = HardwareConfig(threads=1, workers=0)
INT4 = QuantConfig("int4", [Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def exported_run(fitted_run, tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
    from nibble.commands.export import export
    from nibble.export.options import ExportConfig

    @cache
    def make(chunk: int | None = None) -> Path:
        output = tmp_path_factory.mktemp("exported") / "sherpa"
        return export(ExportConfig(str(fitted_run("stateless", chunk)), quant=INT4, output=str(output)))

    return make


def measure(path: Path, backend: Backend, **values: object):
    options = EvaluateConfig(checkpoint=str(path), backend=backend, hardware=CPU, **values)  # type: ignore[arg-type]
    return evaluate_checkpoints(options)[0]


@pytest.mark.parametrize(
    ("backend", "package", "decoding", "name"),
    [
        (Backend.onnx, "onnxruntime", Search.greedy, "onnx w4a8 greedy"),
        (Backend.onnx, "onnxruntime", Search.beam, "onnx w4a8 beam8"),
        (Backend.sherpa, "sherpa_onnx", Search.greedy, "sherpa {version} w4a8 greedy"),
        (Backend.sherpa, "sherpa_onnx", Search.beam, "sherpa {version} w4a8 beam8"),
    ],
)
def test_an_export_has_the_record_of_its_checkpoint(
    exported_run, fitted_run, backend: Backend, package: str, decoding: Search, name: str
) -> None:
    module = pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")
    folder = exported_run()
    result = measure(folder, backend, decoding=decoding)
    (record,) = read(Path("runs/records.jsonl"))
    torch_record = measure(fitted_run("stateless"), Backend.torch, decoding=decoding, quant=INT4, records=None).record
    assert record == result.record
    assert record.backend == name.format(version=module.__version__)
    assert record.utterance_errors == torch_record.utterance_errors
    assert record.wer < 0.2
    for field in ("experiment", "corpus", "part", "model", "parameters", "quant", "method", "seed", "reference_words"):
        assert getattr(record, field) == getattr(torch_record, field)
    assert record.bundle_bytes == sum(file.stat().st_size for file in folder.iterdir() if file.name != "README.md")
    assert record.rtf > 0
    assert record.threads == 1
    assert 2**26 < result.record.peak_bytes < 2**36


@pytest.mark.parametrize("decoding", list(Search))
def test_a_model_that_streams_is_measured_alike_by_all(exported_run, fitted_run, decoding: Search) -> None:
    for package in ("onnxruntime", "sherpa_onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")
    run = fitted_run("stateless", 8)
    expected = measure(run, Backend.torch, decoding=decoding, quant=INT4, records=None).record
    assert expected.wer < 0.2
    for backend in (Backend.onnx, Backend.sherpa):
        record = measure(exported_run(8), backend, decoding=decoding, records=None).record
        assert record.utterance_errors == expected.utterance_errors


def test_the_bundle_of_a_run(fitted_run) -> None:
    run = fitted_run("stateless")
    with pytest.raises(UserError, match=r"is no bundle, and has none in .*; write one with python -m nibble.export"):
        measure(run, Backend.bundle)
    loaded = quantize(load_checkpoint(run), INT4)
    size = write_bundle(loaded, run / "bundle")
    record = measure(run, Backend.bundle, records=None).record
    assert record.backend == "bundle native greedy"
    assert record.bundle_bytes == size
    again = measure(run / "bundle", Backend.bundle, records=None).record
    assert again.utterance_errors == record.utterance_errors


@pytest.mark.parametrize("values", [{"quant": INT4, "checkpoint": "folder"}, {"experiment": "digits"}])
def test_an_export_is_measured_as_it_is(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="backend=onnx measures an exported folder as it is"):
        EvaluateConfig(backend=Backend.onnx, hardware=CPU, **values)  # type: ignore[arg-type]


def test_exports_run_on_the_cpu(tmp_path: Path) -> None:
    options = EvaluateConfig(checkpoint="x", backend=Backend.sherpa, hardware=HardwareConfig(accelerator="gpu"))
    with pytest.raises(UserError, match="backend=sherpa runs on the CPU; use hardware=cpu"):
        evaluate_checkpoints(options)


def test_a_checkpoint_is_no_export(fitted_run) -> None:
    with pytest.raises(UserError, match=r"is no exported folder: it has no nibble.json"):
        measure(fitted_run("stateless"), Backend.onnx)


@pytest.mark.parametrize("backend", list(Backend))
def test_a_long_utterance_is_heard_in_windows(
    exported_run, fitted_run, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """A minute as one utterance loses and doubles no words at seams; a short utterance beside it is heard as it is."""
    for package in ("onnxruntime", "sherpa_onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")
    monkeypatch.setattr(windowed, "windows", partial(windows, detect=loud))  # the corpus is of tones
    texts, samples = [], []
    for transcript in sorted((tiny_corpus / "LibriSpeech/dev-tiny").rglob("*.trans.txt")):
        for line in transcript.read_text().splitlines():
            name, text = line.split(" ", 1)
            texts.append(text)
            samples += [soundfile.read(transcript.parent / f"{name}.flac", dtype="float32")[0], np.zeros(16_000)]
    (folder := tmp_path / "long" / "dev-long" / "1" / "1").mkdir(parents=True)
    soundfile.write(folder / "1-1-0000.flac", np.concatenate(6 * samples), 16_000)
    soundfile.write(folder / "1-1-0001.flac", samples[0], 16_000)
    (folder / "1-1.trans.txt").write_text(f"1-1-0000 {' '.join(6 * texts)}\n1-1-0001 {texts[0]}\n")
    run = fitted_run("stateless")
    path, quant = (exported_run(), None) if backend.reads_export else (run, INT4)
    if backend is Backend.bundle:
        path, quant = tmp_path / "bundle", None
        write_bundle(quantize(load_checkpoint(run), INT4), path)
    short = measure(path, backend, records=None, quant=quant).record
    data = DataOverrides(corpus_dir=str(tmp_path / "long"))
    record = measure(path, backend, records=None, quant=quant, data=data).record
    assert (record.windowed, short.windowed) == (1, 0)
    errors = {id_: errors for id_, errors, _ in record.utterance_errors}
    expected = [errors for _, errors, _ in short.utterance_errors]
    assert errors["1-1-0001"] == expected[0]
    # A window starts elsewhere within a frame than its utterance does, so a code may flip and with it a word. What went
    # wrong at seams would go wrong at each of them.
    seams = 6 * len(texts) - 1
    assert seams > 10
    assert abs(errors["1-1-0000"] - 6 * sum(expected)) <= 2

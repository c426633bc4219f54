"""The folder, and the real sherpa-onnx on it."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from exports import heard_in_dev_tiny

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")

from nibble.config import portable
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.errors import UserError
from nibble.evaluation.sherpa import Sherpa
from nibble.export.onnx.graphs import export_graphs
from nibble.export.options import Encoding
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.exported import GRAPHS, check_folder, read_exported


@pytest.fixture
def copied(exported, tmp_path: Path) -> Path:
    """An exported folder to be damaged."""
    return Path(shutil.copytree(exported("stateless", Encoding.w4a8)[2], tmp_path / "sherpa"))


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_sherpa_onnx_recognises_what_torch_recognises(exported, predictor, encoding, tmp_path: Path) -> None:
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
    loaded, _, folder = exported(predictor, encoding)
    recogniser = sherpa_onnx.OfflineRecognizer.from_transducer(
        *(str(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")), tokens=str(folder / "tokens.txt")
    )
    batch, expected = heard_in_dev_tiny(loaded, tmp_path)
    streams = [recogniser.create_stream() for _ in batch.ids]
    for stream, samples in zip(streams, batch.samples, strict=True):
        stream.accept_waveform(SAMPLE_RATE_HZ, samples.numpy())
        recogniser.decode_stream(stream)
    assert [stream.result.tokens for stream in streams] == [tokens for tokens, _ in expected]
    for stream, (_, times_s) in zip(streams, expected, strict=True):
        assert stream.result.timestamps == pytest.approx(times_s)
    if predictor == "stateless":
        assert any(len(token.strip()) == 2 for tokens, _ in expected for token in tokens)


def test_the_folder_says_what_it_is(exported) -> None:
    loaded, _, folder = exported("lstm", Encoding.w4a8)
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "bpe.vocab",
        "decoder.onnx",
        "encoder.onnx",
        "joiner.onnx",
        "nibble.json",
        "tokenizer.model",
        "tokens.txt",
    ]
    found = read_exported(folder)
    assert (found.encoding, found.quant, found.method, found.corpus) == (Encoding.w4a8, "int4", "ptq", "tiny")
    assert found.config == portable(loaded.config)
    assert found.tokenizer.model == loaded.tokenizer.model
    assert found.size_bytes == sum(file.stat().st_size for file in folder.iterdir() if file.suffix != ".md")
    assert (folder / "tokens.txt").read_text().startswith("<blk> 0\n<unk> 1\n")
    vocabulary = [line.split("\t") for line in (folder / "bpe.vocab").read_text(encoding="utf-8").splitlines()]
    assert [piece for piece, _ in vocabulary] == loaded.tokenizer.pieces(range(loaded.tokenizer.size))
    assert all(float(score) <= 0 for _, score in vocabulary)
    graphs_bytes = sum((folder / graph).stat().st_size for graph in GRAPHS)
    said = (folder / "README.md").read_text(encoding="utf-8")
    assert said.startswith("# tiny at int4, encoded as w4a8, for sherpa-onnx\n")
    assert f"{graphs_bytes / 1e6:.1f} MB together" in said


def test_a_sherpa_onnx_that_is_too_old_is_told_before_it_ends_the_process(exported, monkeypatch) -> None:
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
    folder = exported("stateless", Encoding.w4a8)[2]
    monkeypatch.setattr(sherpa_onnx, "__version__", "1.12.9")
    with pytest.raises(UserError, match=r"needs sherpa-onnx 1\.12\.20 or later, and 1\.12\.9 is installed; .*opset=17"):
        Sherpa(read_exported(folder), beam_width=1, threads=1)
    monkeypatch.setattr(sherpa_onnx, "__version__", "1.10.46")
    said = replace(read_exported(folder), opset=17)
    durations = replace(said, config=replace(said.config, model=replace(said.config.model, max_duration_frames=4)))
    assert said.least_sherpa_onnx is None
    text = r"needs sherpa-onnx 1\.11\.5 or later, and 1\.10\.46 is installed; pip install -U sherpa-onnx$"
    with pytest.raises(UserError, match=text):
        Sherpa(durations, beam_width=1, threads=1)


def test_pairs_need_a_stateless_predictor(fitted) -> None:
    with pytest.raises(UserError, match=r"labels_per_frame=2: sherpa-onnx gets two .* predictor=stateless"):
        export_graphs(fitted("lstm", 4), Encoding.w4a8, labels_per_frame=2)


def test_damage_is_found_before_anything_is_loaded(copied: Path) -> None:
    joiner = copied / "joiner.onnx"
    whole = joiner.read_bytes()
    joiner.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"joiner.onnx is damaged or was changed \(\d+ bytes\); copy it again"):
        read_exported(copied)
    joiner.unlink()
    with pytest.raises(UserError, match=r"is not a whole export: joiner.onnx is missing"):
        read_exported(copied)
    joiner.write_bytes(whole)
    read_exported(copied)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "of version 2; this nibble reads 'nibble sherpa' of version 1"),
        ({"encoding": "w3"}, "nibble.json is damaged or of another version: .*w3"),
        ({"surprise": 1}, "nibble.json is damaged or of another version: .*surprise"),
    ],
)
def test_another_description(copied: Path, change: dict[str, object], text: str) -> None:
    said = json.loads((copied / "nibble.json").read_text())
    (copied / "nibble.json").write_text(json.dumps({**said, **change}))
    with pytest.raises(UserError, match=text):
        read_exported(copied)


def test_folders_that_are_no_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist; write one with python -m nibble.export"):
        read_exported(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is no exported folder: it has no nibble.json"):
        read_exported(tmp_path)


def test_an_export_is_no_checkpoint(copied: Path) -> None:
    with pytest.raises(UserError, match=f"python evaluate.py checkpoint={copied} backend=sherpa or backend=onnx"):
        load_checkpoint(copied)


def test_only_an_export_is_replaced(copied: Path) -> None:
    check_folder(copied)
    check_folder(copied / "new")
    (copied / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds other files than an export, such as notes.txt"):
        check_folder(copied)
    with pytest.raises(UserError, match="is a file"):
        check_folder(copied / "notes.txt")


@pytest.mark.parametrize("name", GRAPHS)
def test_an_onnx_file_that_is_none(exported, tmp_path, name):
    """Its checksum fits: sherpa-onnx would end the process."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("sherpa_onnx")
    _, _, whole = exported("stateless", Encoding.w4a8)
    folder = Path(shutil.copytree(whole, tmp_path / "folder"))
    for content in (b"", (folder / name).read_bytes()[:1000]):
        (folder / name).write_bytes(content)
        said = json.loads((folder / "nibble.json").read_text())
        said["sha256"][name] = hashlib.sha256(content).hexdigest()
        (folder / "nibble.json").write_text(json.dumps(said))
        with pytest.raises(UserError, match=rf"ONNX Runtime cannot load .*{name}: .*export it again"):
            Sherpa(read_exported(folder), beam_width=1, threads=1)

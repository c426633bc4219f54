"""From a .nemo archive to a folder that sherpa-onnx runs as a NeMo transducer, at four bits: the text is torch's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from speech_model import as_transducer
from test_nemo import VARIANTS, description, weights, write

from nibble.commands.export import export
from nibble.commands.import_model import main
from nibble.conventions import BLANK
from nibble.data.batch import unlabelled
from nibble.evaluation.sherpa import Sherpa, load_sherpa
from nibble.export.options import Encoding, ExportConfig
from nibble.features.extractor import make_features
from nibble.imports.recognition import read_foreign
from nibble.inference.onnx_transducer import onnx_transducer
from nibble.model.searchable import Searchable
from nibble.post_training.options import QuantizeConfig, Rounding
from nibble.post_training.quantization import quantize_without_training
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import write_bundle
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.exported import read_exported
from nibble.runs.loaded import Loaded

knf = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
SPEECH = range(1_200, 12_000, 600)  # samples
# Between the best logit and the second, at each choice: more than rounding adds up to in a network this narrow, where a
# frame of features on the border between two codes falls to either side.
CLEAR = {Encoding.float: 0.1, Encoding.w4: 0.2, Encoding.w8a8: 0.5, Encoding.w4a8: 0.5}


class SherpaFeatures:
    """What sherpa-onnx computes for a NeMo transducer."""

    bins, shift_s, settings = 80, 0.01, "sherpa-onnx"

    def frame_count(self, samples: int) -> int:
        return len(self(torch.zeros(samples)))

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        options = knf.FbankOptions()
        options.frame_opts.dither, options.frame_opts.snip_edges = 0, False
        options.frame_opts.remove_dc_offset = False
        options.mel_opts.num_bins, options.mel_opts.low_freq, options.mel_opts.high_freq = 80, 0, -400
        options.mel_opts.is_librosa = True
        fbank = knf.OnlineFbank(options)
        fbank.accept_waveform(16_000, samples.tolist())
        fbank.input_finished()
        frames = torch.from_numpy(np.stack([fbank.get_frame(number) for number in range(fbank.num_frames_ready)]))
        return (frames - frames.mean(0)) / (frames.std(0, correction=0) + 1e-5)


def speech(samples: int) -> torch.Tensor:
    """Tones that change, so that frames differ."""
    time = torch.arange(samples) / 16_000
    random = torch.Generator().manual_seed(samples)
    tones = sum(
        torch.sin(2 * torch.pi * hz * time * (1 + 0.3 * time)) * torch.rand((), generator=random)
        for hz in (130, 410, 900, 2300)
    )
    return (0.1 * tones + 0.01 * torch.randn(samples, generator=random)).float()


MOST = 10  # labels of a frame, for sherpa-onnx


@torch.no_grad()
def found_by(model: Searchable, features: torch.Tensor) -> tuple[list[int], list[int], float]:
    """Greedy search as sherpa-onnx does it, which bounds no repeats: labels, the frame of each, and the least lead."""
    encoded, _ = model.encode(features.unsqueeze(0), torch.tensor([len(features)]))
    state = model.start_labels(1, encoded.device)
    labels, frames, least = [], [], float("inf")
    for number, frame in enumerate(model.project(encoded)[0]):
        for _ in range(MOST):
            best, second = model.label_logits(frame, state).topk(2).values[0].tolist()
            least = min(least, best - second)
            label = model.label_logits(frame, state).argmax(1)
            if label == BLANK:
                break
            labels.append(int(label))
            frames.append(number)
            state = model.append_label(label, state)
    return labels, frames, least


def tell_frames_apart(path: Path, tensors: dict[str, torch.Tensor], factor: float) -> None:
    """Let the joiner hear how the frames of the model at `path` differ, `factor` times as loud; changes `tensors`."""
    features = SherpaFeatures()(speech(32_000))
    with torch.no_grad():
        encoded = as_transducer(read_foreign(path)).encode(features[None], torch.tensor([len(features)]))[0][0]
    projection = torch.randn(tensors["joint.enc.weight"].shape, generator=torch.Generator().manual_seed(0))
    tensors["joint.enc.weight"] = projection / encoded.std(0) * factor
    tensors["joint.enc.bias"] = -tensors["joint.enc.weight"] @ encoded.mean(0)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Path:
    """A random FastConformer-Transducer as a run, in which frames differ and blank is about as probable as labels."""
    root = tmp_path_factory.mktemp("nemo")
    said = description(**VARIANTS["fastconformer"])
    tensors = weights(said)
    path = write(root / "small.nemo", said, tensors)
    tell_frames_apart(path, tensors, 1 / 4)
    tensors["joint.pred.weight"] *= 2
    (bias,) = (name for name in tensors if name.startswith("joint.joint_net.") and name.endswith("bias"))
    tensors[bias.replace("bias", "weight")] *= 2
    tensors[bias][-1] += 4.0
    path = write(root / "small.nemo", said, tensors)
    assert main([str(path), str(root / "run"), f"data.corpus_dir={tiny_corpus}"]) == 0
    return root / "run"


def folder_of(imported: Path, encoding: Encoding, tmp_path: Path) -> tuple[Loaded, Path]:
    """The model, and its export; of integers, rounded by GPTQ first."""
    loaded, checkpoint = load_checkpoint(imported), imported
    if encoding is not Encoding.float:
        activation = None if encoding is Encoding.w4 else ActivationSpec()
        quant = QuantConfig("rules", [Rule(weight=WeightSpec(BITS[encoding]), activation=activation)])
        options = QuantizeConfig(str(imported), quant, Rounding.gptq, calibration_utterances=4)
        loaded = quantize_without_training(loaded, options, torch.device("cpu")).loaded
        checkpoint = tmp_path / "bundle"
        write_bundle(loaded, checkpoint)
    parity = encoding is Encoding.w4a8
    options = ExportConfig(str(checkpoint), encoding=encoding, parity=parity, output=str(tmp_path / "sherpa"))
    return load_checkpoint(checkpoint), export(options)


BITS = {Encoding.w8a8: 8, Encoding.w4a8: 4, Encoding.w4: 4}


@pytest.mark.parametrize("encoding", Encoding)
def test_sherpa_onnx_finds_what_torch_finds(
    imported: Path, encoding: Encoding, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Several labels a frame, each at its time; ONNX Runtime finds them in NeMo's own features too."""
    monkeypatch.chdir(tmp_path)
    loaded, folder = folder_of(imported, encoding, tmp_path)
    exported = read_exported(folder)
    if encoding is Encoding.w4a8:
        assert "36 of 36 equal" in capsys.readouterr().out  # layers' integers
    ours, theirs = make_features(exported.config.features), SherpaFeatures()
    onnx, recogniser = onnx_transducer(folder, 1, loaded.tokenizer.size), load_sherpa(exported, 1, 1)
    text_of = Sherpa(exported, 1, 1)
    heard: set[int] = set()
    compared = 0
    for samples in map(speech, SPEECH):
        *expected, lead = found_by(loaded.model, ours(samples))
        if lead > CLEAR[encoding]:
            assert list(found_by(onnx, ours(samples))[:2]) == expected
        labels, frames, lead = found_by(loaded.model, theirs(samples))
        if lead < CLEAR[encoding]:
            continue
        stream = recogniser.create_stream()
        stream.accept_waveform(16_000, samples.numpy())
        recogniser.decode_stream(stream)
        tokens = [token.replace(" ", "\u2581") for token in stream.result.tokens]
        assert tokens == loaded.tokenizer.pieces(labels)
        assert stream.result.timestamps == pytest.approx([0.08 * frame for frame in frames])
        assert text_of(unlabelled([ours(samples)], [samples])) == [loaded.tokenizer.decode(labels)]
        heard |= set(labels)
        compared += 1
    assert compared > 2
    assert len(heard) > 1

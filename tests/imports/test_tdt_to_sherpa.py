"""A token-and-duration transducer from a .nemo archive, at eight and four bits, in sherpa-onnx: the text is torch's."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_nemo import VARIANTS, description, weights, write
from test_nemo_to_sherpa import CLEAR, SPEECH, SherpaFeatures, folder_of, speech, tell_frames_apart

from nibble.commands.import_model import main
from nibble.conventions import BLANK
from nibble.data.options import Tokens
from nibble.data.tokenizer import train_tokenizer
from nibble.errors import UserError
from nibble.evaluation.sherpa import load_sherpa
from nibble.export.onnx.graphs import check_features
from nibble.export.options import Encoding
from nibble.features.options import FeatureConfig
from nibble.inference.onnx_transducer import onnx_transducer
from nibble.model.decoding import greedy
from nibble.model.searchable import Searchable
from nibble.model.transducer import Transducer
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.exported import read_exported
from nibble.training.initialisation import load_weights

pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Path:
    """A random FastConformer of durations as a run, in which frames differ and blank is as probable as a label."""
    root = tmp_path_factory.mktemp("tdt")
    said = description(**VARIANTS["fastconformer"], **VARIANTS["tdt"])
    tensors = weights(said)
    path = write(root / "small.nemo", said, tensors)
    tell_frames_apart(path, tensors, 1 / 2)
    (head,) = (name for name in tensors if name.startswith("joint.joint_net.") and name.endswith("weight"))
    tensors[head] *= 4
    tensors[head.replace("weight", "bias")][-6] += 3.0  # blank
    path = write(root / "small.nemo", said, tensors)
    assert main([str(path), str(root / "run"), f"data.corpus_dir={tiny_corpus}"]) == 0
    return root / "run"


class Leads:
    """A `Searchable` that remembers the least lead of a best logit over the second, of labels and of durations."""

    def __init__(self, model: Searchable) -> None:
        self._model, self.least = model, float("inf")

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def label_logits(self, frame, state):
        logits = self._model.label_logits(frame, state)
        for part in logits.tensor_split((logits.size(1) - self._model.durations,), dim=1):
            best, second = part.topk(2).values[0].tolist()
            self.least = min(self.least, best - second)
        return logits


@torch.no_grad()
def found_by(model: Searchable, features: torch.Tensor) -> tuple[list[int], list[int], float]:
    """Greedy search: labels, the frame of each, and the least lead."""
    leads = Leads(model)
    (found,) = greedy(leads, *model.encode(features.unsqueeze(0), torch.tensor([len(features)])))
    return found.ids, found.frames, leads.least


@pytest.mark.parametrize("encoding", [Encoding.float, Encoding.w4a8])
def test_sherpa_onnx_follows_durations(imported: Path, encoding: Encoding, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nibble.model.decoding.MAX_REPEATS", 10**6)  # sherpa-onnx bounds none
    loaded, folder = folder_of(imported, encoding, tmp_path)
    assert loaded.model.durations == 5
    onnx, recogniser = onnx_transducer(folder, 1, loaded.tokenizer.size), load_sherpa(read_exported(folder), 1, 1)
    assert onnx.durations == 5
    heard, compared, jumped = set(), 0, 0
    for samples in map(speech, SPEECH):
        features = SherpaFeatures()(samples)
        labels, frames, lead = found_by(loaded.model, features)
        if lead < CLEAR[encoding]:
            continue
        assert found_by(onnx, features)[:2] == (labels, frames)
        stream = recogniser.create_stream()
        stream.accept_waveform(16_000, samples.numpy())
        recogniser.decode_stream(stream)
        tokens = [token.replace(" ", "\u2581") for token in stream.result.tokens]
        assert tokens == loaded.tokenizer.pieces(labels)
        assert stream.result.timestamps == pytest.approx([0.08 * frame for frame in frames])
        heard |= set(labels) - {BLANK}
        compared += 1
        jumped += sum(later > earlier + 1 for earlier, later in pairwise(frames))
    assert compared > 2
    assert len(heard) > 1
    assert jumped


def test_durations_are_kept_with_another_tokenizer(imported: Path) -> None:
    theirs = load_checkpoint(imported)
    ours = train_tokenizer(["STOP", "GO QZ"], Tokens.char, 0, imported)
    model = Transducer(theirs.config.model, theirs.config.features, ours.size)
    load_weights(model, imported, [], ours)
    assert torch.equal(model.joiner.output.weight[ours.size :], theirs.model.joiner.output.weight[-5:])


def test_durations_need_nemos_features(imported: Path) -> None:
    config = load_checkpoint(imported).config
    config.features = FeatureConfig()
    with pytest.raises(UserError, match=r"predicts durations .*; train with features=nemo, or export it with target="):
        check_features(imported, config)

"""Exported folders, each made once."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nibble.conventions import BLANK, WORD_START
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.feeding import Feeding
from nibble.export.options import Encoding
from nibble.hardware import HardwareConfig
from nibble.model.predictor import StatelessPredictor
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import Loaded

INTEGERS = {bits: [Rule(weight=WeightSpec(bits), activation=ActivationSpec())] for bits in (4, 8)}
BITS = {Encoding.float: None, Encoding.w8a8: 8, Encoding.w4a8: 4, Encoding.w4: 4}


def heard(loaded: Loaded, encoded: Tensor, lengths: Tensor) -> list[tuple[list[str], list[float]]]:
    """What sherpa-onnx should find in each utterance: its tokens, and when each was said, in seconds.

    A token is up to two labels of one frame if the predictor is stateless; the second does not begin a word.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    most = 2 if isinstance(model.predictor, StatelessPredictor) else 1
    projected = model.joiner.project_encoder(encoded)
    found = []
    for frames, length in zip(projected, lengths.tolist(), strict=True):
        tokens, times_s = [], []
        predicted, state = model.predictor.step(torch.tensor([BLANK]), model.predictor.start(1, encoded.device))
        for frame in range(length):
            said = ""
            for number in range(most):
                logit = model.joiner.combine(frames[frame : frame + 1], model.joiner.project_predictor(predicted))
                label = logit.argmax(1)
                (piece,) = tokenizer.pieces(label.tolist())
                if label == BLANK or (number and piece.startswith(WORD_START)):
                    break
                said += piece
                predicted, state = model.predictor.step(label, state)
            if said:
                tokens.append(said.replace(WORD_START, " "))
                times_s.append(0.04 * frame)
        found.append((tokens, times_s))
    return found


def heard_in_dev_tiny(loaded: Loaded, folder: Path) -> tuple[Batch, list[tuple[list[str], list[float]]]]:
    """The utterances of dev-tiny with their samples, and what should be found in each; `folder` takes caches."""
    config, hardware = loaded.config, HardwareConfig(workers=0)
    feeding = Feeding(loaded.tokenizer, keep_samples=True)
    data = SpeechDataModule(config.data, config.features, hardware, 1, folder, feeding)
    (batch,) = data.dataloader(["dev-tiny"])
    with torch.no_grad():
        expected = heard(loaded, *loaded.model.encode(batch.features, batch.feature_lengths))
    assert sum(len(tokens) for tokens, _ in expected) > 40
    return batch, expected


@pytest.fixture(scope="session")
def fitted(fitted_run):
    """fitted(predictor, bits) -> the model that knows dev-tiny by heart, rounded to so many bits; None: in float.

    With a number of frames, one that streams in chunks of so many.
    """

    @cache
    def load(predictor: str, bits: int | None, chunk: int | None = None) -> Loaded:
        loaded = load_checkpoint(fitted_run(predictor, chunk))
        return loaded if bits is None else quantize(loaded, QuantConfig(f"int{bits}", INTEGERS[bits]))

    return load


@pytest.fixture(scope="session")
def exported(fitted, tmp_path_factory: pytest.TempPathFactory):
    """exported(predictor, encoding) -> the model and the three graphs, and their folder. Treat them as read-only.

    With a number of frames, of a model that streams in chunks of so many.
    """
    pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
    from nibble.export.sherpa.folder import export_folder

    @cache
    def export(predictor: str, encoding: Encoding, chunk: int | None = None):
        loaded = fitted(predictor, BITS[encoding], chunk)
        folder: Path = tmp_path_factory.mktemp(f"{predictor}_{encoding}") / "sherpa"
        _, graphs = export_folder(folder, loaded, encoding)
        return loaded, graphs, folder

    return export

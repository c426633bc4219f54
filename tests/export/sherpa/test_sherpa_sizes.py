"""A smaller size of a trained network, rounded to four bits, in sherpa-onnx and as a bundle."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exports import INTEGERS, heard_in_dev_tiny

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")

from nibble.commands.export import export
from nibble.config import plain
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.export.options import ExportConfig, Target
from nibble.model.options import SizeConfig
from nibble.model.transducer import Transducer
from nibble.quant.spec import QuantConfig
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.tensors import WEIGHTS

INT4 = QuantConfig("int4", INTEGERS[4])


@pytest.fixture
def larger_run(fitted_run, tmp_path: Path) -> Path:
    """A run whose size `small` is the network of `fitted_run`: its weights are the corners of random larger ones."""
    alone = load_checkpoint(fitted_run("stateless"))
    small = alone.config.model
    model = replace(
        small,
        layers=small.layers + 1,
        heads=2 * small.heads,
        head_width=small.width_of_head,
        feed_forward_multiplier=2 * small.feed_forward_multiplier,
        convolution_channels=small.channels + 16,
        sizes=[SizeConfig("small", small.layers, 0.5, small.heads, small.channels)],
    )
    torch.manual_seed(3)
    state = Transducer(model, alone.config.features, alone.tokenizer.size).state_dict()
    for name, tensor in alone.model.state_dict().items():
        large = state[name.replace("convolution.batch_norm.", "convolution.size_norms.0.")]
        # Values and their gates are two halves, each with a corner of its own.
        gated = "convolution.pointwise1." in name
        for own, corner in zip(large.chunk(2), tensor.chunk(2), strict=True) if gated else [(large, tensor)]:
            own[tuple(map(slice, corner.shape))] = corner
    saved = torch.load(fitted_run("stateless") / "checkpoints/last.ckpt", weights_only=True)
    saved["state_dict"] = {f"model.{name}": tensor for name, tensor in state.items()}
    saved["nibble"]["config"] = plain(replace(alone.config, model=model))
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    torch.save(saved, tmp_path / "run/checkpoints/last.ckpt")
    return tmp_path / "run"


def test_sherpa_onnx_recognises_what_torch_recognises_at_a_smaller_size(larger_run, tmp_path: Path) -> None:
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
    folder = export(ExportConfig(str(larger_run), size="small", quant=INT4))
    recogniser = sherpa_onnx.OfflineRecognizer.from_transducer(
        *(str(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")), tokens=str(folder / "tokens.txt")
    )
    small = quantize(load_checkpoint(larger_run, "small"), INT4)
    batch, expected = heard_in_dev_tiny(small, tmp_path)
    for samples, (tokens, times_s) in zip(batch.samples, expected, strict=True):
        stream = recogniser.create_stream()
        stream.accept_waveform(SAMPLE_RATE_HZ, samples.numpy())
        recogniser.decode_stream(stream)
        assert stream.result.tokens == tokens
        assert stream.result.timestamps == pytest.approx(times_s)


def test_its_weights_are_stored_as_those_of_a_run_of_that_size_alone(larger_run, fitted_run, tmp_path: Path) -> None:
    bundle = {"quant": INT4, "target": Target.bundle}
    taken = export(ExportConfig(str(larger_run), size="small", **bundle))
    alone = export(ExportConfig(str(fitted_run("stateless")), output=str(tmp_path / "alone"), **bundle))
    assert (taken / WEIGHTS).read_bytes() == (alone / WEIGHTS).read_bytes()

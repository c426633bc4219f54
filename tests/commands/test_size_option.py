"""`size=NAME` of a run with `model.sizes`, in each command that takes a checkpoint."""

from pathlib import Path

import pytest

from nibble.commands.export import export
from nibble.commands.quantize import quantize_checkpoint
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import Backend, EvaluateConfig
from nibble.export.options import ExportConfig, Target
from nibble.hardware import HardwareConfig
from nibble.post_training.options import QuantizeConfig
from nibble.quant.spec import QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import bundle_bytes, read_bundle
from nibble.runs.records import read
from nibble.runs.tensors import WEIGHTS

CPU = HardwareConfig(threads=1, workers=0)
SIZES = (
    "model.layers=2",
    "model.feed_forward_multiplier=4",
    "model.sizes=[{name:small,layers:1,feed_forward:0.5,heads:1,channels:16}]",
)
ALONE = (
    "model.name=tiny-small",
    "model.heads=1",
    "model.head_width=16",
    "model.feed_forward_multiplier=2",
    "model.convolution_channels=16",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_bundle_of_a_size_holds_only_its_weights(write_run) -> None:
    run, alone = write_run("int4", "rules", options=SIZES), write_run("int4", "rules", options=ALONE)
    small = export(ExportConfig(str(run), size="small", target=Target.bundle))
    own = export(ExportConfig(str(alone), target=Target.bundle))
    assert small == run / "bundle_small_int4"
    assert (small / WEIGHTS).stat().st_size == (own / WEIGHTS).stat().st_size
    assert bundle_bytes(small) == pytest.approx(bundle_bytes(own), abs=200)  # paths and names in the description
    assert read_bundle(small).model.state_dict().keys() == read_bundle(own).model.state_dict().keys()


def test_records_name_the_size_and_its_bundle_has_the_same_errors(write_run) -> None:
    run = write_run("int4", "rules", options=SIZES)
    bundle = export(ExportConfig(str(run), size="small", target=Target.bundle, parity=True))
    evaluate_checkpoints(EvaluateConfig(checkpoint=str(run), hardware=CPU))
    evaluate_checkpoints(EvaluateConfig(checkpoint=str(run), size="small", hardware=CPU))
    evaluate_checkpoints(EvaluateConfig(checkpoint=str(bundle), backend=Backend.bundle, hardware=CPU))
    whole, small, bundled = read(Path("runs/records.jsonl"))
    assert [one.model for one in (whole, small, bundled)] == ["tiny", "tiny-small", "tiny-small"]
    assert whole.parameters > small.parameters == bundled.parameters
    assert whole.bundle_bytes > small.bundle_bytes
    assert small.bundle_bytes == pytest.approx(bundle_bytes(bundle), abs=200)
    with pytest.raises(UserError, match="tiny has no size=large; it has: small"):
        evaluate_checkpoints(EvaluateConfig(checkpoint=str(run), size="large", hardware=CPU))
    with pytest.raises(UserError, match="leave experiment=, size= and quant= out"):
        EvaluateConfig(checkpoint=str(run), size="small", backend=Backend.sherpa, hardware=CPU)


def test_a_size_is_quantized_without_training(write_run) -> None:
    int4 = QuantConfig("int4", [Rule(weight=WeightSpec(bits=4))])
    run = write_run(options=SIZES)
    folder = quantize_checkpoint(QuantizeConfig(str(run), size="small", quant=int4, hardware=CPU))
    assert folder == run / "bundle_small_int4_nearest"
    assert read_bundle(folder).config.model.name == "tiny-small"


def test_a_size_is_exported_with_the_layers_of_torch(write_run, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")
    run = write_run("int4", "rules", options=SIZES)
    folder = export(ExportConfig(str(run), size="small", parity=True))
    assert folder == run / "sherpa_small_int4_w4a8"
    assert "encoder.blocks.1" not in capsys.readouterr().out
    (result,) = evaluate_checkpoints(EvaluateConfig(checkpoint=str(folder), backend=Backend.onnx, hardware=CPU))
    assert (result.record.model, result.record.quant) == ("tiny-small", "int4")

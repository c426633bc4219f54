"""Models whose weights are analog: evaluated with several draws of their noise, and not exported."""

import io
from pathlib import Path

import pytest

from nibble.commands.export import export
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.evaluation.printing import print_results
from nibble.export.options import ExportConfig
from nibble.hardware import HardwareConfig
from nibble.quant.analog_spec import AnalogSpec
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule
from nibble.runs.records import read
from nibble.terminal import Console
from nibble.training.run import train

CPU = HardwareConfig(threads=1, workers=0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # data/ and runs/ appear here


def test_each_draw_is_another_chip_and_the_first_is_the_record(fitted_run) -> None:
    noisy = QuantConfig(
        "analog", [Rule("encoder.blocks.*.feed_forward*.*", None, ActivationSpec(), analog=AnalogSpec(10))]
    )
    options = EvaluateConfig(checkpoint=str(fitted_run("stateless")), quant=noisy, draws=4, hardware=CPU)
    (result,) = evaluate_checkpoints(options)
    (record,) = read(Path("runs/records.jsonl"))
    assert (len(record.draws), record.draws[0], record.backend) == (4, record.wer, "native greedy")
    assert len(set(record.draws)) > 1
    console = Console(width=200, file=io.StringIO())
    print_results([result], console)
    assert "4 draws of the noise: mean " in console.file.getvalue()
    assert f"worst {100 * max(record.draws):.2f} %" in console.file.getvalue()
    (again,) = evaluate_checkpoints(options)
    assert again.record.draws == record.draws
    options.quant = None
    with pytest.raises(UserError, match=r"draws=4: .* is at float, whose weights have no noise; give quant=analog"):
        evaluate_checkpoints(options)


def test_a_run_is_trained_with_noise_and_its_bundle_is_drawn_as_it_is(compose_tiny, tiny_corpus) -> None:
    run = Path("runs/tiny").resolve()
    noise = ("quant=analog", "quant.analog.noise=2", "schedule=from_scratch")
    train(compose_tiny(run, tiny_corpus, *noise, "trainer.max_steps=2"))
    options = EvaluateConfig(checkpoint=[str(run), str(run / "bundle")], draws=2, hardware=CPU)
    trained, bundle = evaluate_checkpoints(options)
    assert (trained.record.quant, trained.record.method) == ("analog", "qat")
    assert bundle.record.bundle_bytes > 0.4 * bundle.record.float32_bytes, "16 bits: there are no codes"
    with pytest.raises(UserError, match="is at analog, which simulates analog memory and is no format of weights"):
        export(ExportConfig(str(run)))

"""Float checkpoints to integers on a little speech, and what is said where that cannot be."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from nibble.config import Config
from nibble.data.options import DataOverrides, NoiseConfig, NoiseKind
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.model.transducer import Transducer
from nibble.post_training.options import QuantizeConfig, Rounding
from nibble.post_training.quantization import calibration_batches, quantize_without_training
from nibble.quant.convert import quantized_modules
from nibble.quant.spec import ActivationSpec, Phase, Precision, QuantConfig, Rule, ScheduleConfig, Sparsity, WeightSpec
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import Loaded
from nibble.runs.method import Method

INT3 = QuantConfig("int3", [Rule(weight=WeightSpec(bits=3), activation=ActivationSpec())])
INT4 = QuantConfig("int4", [Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())])
STATIC = QuantConfig("static", [Rule(weight=WeightSpec(), activation=ActivationSpec(static=True))])
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # data/ appears here


def options(**values: object) -> QuantizeConfig:
    given = {"checkpoint": "run", "quant": INT3, "rounding": Rounding.gptq, "hardware": HardwareConfig(), **values}
    return QuantizeConfig(**given)  # type: ignore[arg-type]


def logits(model: Transducer, loaded: Loaded) -> torch.Tensor:
    (batch,) = calibration_batches(loaded, options(calibration_utterances=1))
    with torch.inference_mode():
        return model(batch.features, batch.feature_lengths, batch.labels, batch.label_lengths)[0]


def test_gptq_is_nearer_to_float_than_rounding_to_nearest(write_run) -> None:
    loaded = load_checkpoint(write_run())
    done = quantize_without_training(loaded, options(), CPU)
    assert (done.loaded.quant, done.loaded.method, done.utterances) == ("int3", "gptq", 12)
    assert done.nearest == ["predictor.embedding.weight"]
    layers = quantized_modules(done.loaded.model)
    assert {f"{name}.{weight}" for name, layer in layers.items() for weight in layer.weight_names} == {
        *done.errors,
        *done.nearest,
    }
    assert all(error.gptq <= error.nearest for error in done.errors.values())
    expected = logits(loaded.model, loaded)
    distances = [
        float((logits(model, loaded) - expected).square().mean())
        for model in (done.loaded.model, quantize(loaded, INT3).model)
    ]
    assert distances[0] < 0.7 * distances[1]


def test_the_bundle_gives_what_the_model_in_memory_gives(write_run, tmp_path: Path) -> None:
    loaded = load_checkpoint(write_run())
    rounded = quantize_without_training(loaded, options(rounding=Rounding.nearest), CPU).nearest
    for name, tensor in loaded.model.state_dict().items():
        if name not in rounded and tensor.is_floating_point():
            tensor.copy_(tensor.half().float())  # as a bundle stores what stays in float
    for rounding in Rounding:
        for quant in (INT3, STATIC):
            done = quantize_without_training(loaded, options(rounding=rounding, quant=quant), CPU).loaded
            write_bundle(done, tmp_path / "bundle")
            read = read_bundle(tmp_path / "bundle")
            assert (read.method, read.quant) == ({"nearest": "ptq", "gptq": "gptq"}[rounding.value], quant.name)
            assert torch.equal(logits(read.model, loaded), logits(done.model, loaded))


def test_nearest_needs_no_speech(write_run) -> None:
    loaded = load_checkpoint(write_run())
    nowhere = DataOverrides(corpus_dir="nowhere")
    given = options(rounding=Rounding.nearest, data=nowhere, calibration_utterances=0)
    done = quantize_without_training(loaded, given, CPU)
    assert (done.loaded.method, done.utterances, done.errors) == ("ptq", 0, {})
    assert "predictor.projection.weight" in done.nearest
    assert not Path("data").exists()
    same = quantize(loaded, INT3)
    assert torch.equal(logits(done.loaded.model, loaded), logits(same.model, loaded))


def test_static_scales_are_calibrated_whatever_the_rounding(write_run) -> None:
    loaded = load_checkpoint(write_run())
    with pytest.raises(UserError, match="never calibrated"):
        logits(quantize(loaded, STATIC).model, loaded)
    done = quantize_without_training(loaded, options(rounding=Rounding.nearest, quant=STATIC), CPU)
    assert (done.utterances, done.errors) == (12, {})
    expected, found = logits(loaded.model, loaded), logits(done.loaded.model, loaded)
    assert float((found - expected).square().mean()) < 0.01 * float(expected.var())


def test_speech_is_drawn_by_seed_from_the_training_parts_one_a_batch(write_run) -> None:
    loaded = load_checkpoint(write_run())
    draws = [calibration_batches(loaded, options(calibration_utterances=4, seed=seed)) for seed in (1, 1, 2, 3)]
    ids = [[id_ for batch in batches for id_ in batch.ids] for batches in draws]
    assert ids[0] == ids[1]
    assert any(set(a) != set(b) for a, b in pairwise(ids[1:]))
    assert all(len(each) == len(batches) == 4 for each, batches in zip(ids, draws, strict=True))
    whole = calibration_batches(loaded, options(calibration_utterances=99))
    assert len({batch.ids[0] for batch in whole}) == len(whole) == 12, "each training utterance once"
    assert all(batch.features.size(1) == batch.feature_lengths.max() for batch in whole), "no padding"


def test_neither_masks_nor_speeds_but_noise(write_run, tiny_corpus: Path) -> None:
    loaded = load_checkpoint(write_run())

    def features(config: Config) -> torch.Tensor:
        return calibration_batches(replace(loaded, config=config), options(calibration_utterances=1))[0].features

    plain = loaded.config
    masks = replace(plain.data.spec_augment, time_masks=5, frequency_masks=5)
    augmented = replace(plain, data=replace(plain.data, speed_perturbation=True, spec_augment=masks))
    assert torch.equal(features(augmented), features(plain))
    noise = NoiseConfig(NoiseKind.folder, str(tiny_corpus))
    assert not torch.equal(features(replace(plain, data=replace(plain.data, noise=noise))), features(plain))


def test_speech_that_is_not_there(write_run) -> None:
    loaded = load_checkpoint(write_run())
    with pytest.raises(UserError, match=r"no folder nowhere\. Calibration needs .*corpus_dir=DIR.*rounding=nearest"):
        quantize_without_training(loaded, options(data=DataOverrides(corpus_dir="nowhere")), CPU)


def test_what_is_quantized_already(write_run) -> None:
    with pytest.raises(UserError, match="is at int4 already"):
        quantize_without_training(load_checkpoint(write_run("int4", "rules")), options(), CPU)


def test_pruning_alone_leaves_gptq_nothing_to_round(write_run) -> None:
    pruned = QuantConfig("sparse", [Rule("joiner.*", sparsity=Sparsity(2, 4))])
    with pytest.raises(UserError, match=r"quant=sparse leaves all weights in float; leave rounding=gptq out"):
        quantize_without_training(load_checkpoint(write_run()), options(quant=pruned), CPU)


def test_a_run_for_several_precisions_has_rounded_weights_of_its_own(write_run) -> None:
    loaded = load_checkpoint(write_run("int4", "rules"))
    phase = Phase(precision=Precision.int4, together=[Precision.int8, Precision.int4])
    shared = replace(loaded, method=Method.shared, config=replace(loaded.config, schedule=ScheduleConfig([phase])))
    nearest = quantize_without_training(shared, options(quant=INT4, rounding=Rounding.nearest), CPU)
    assert (nearest.loaded.method, nearest.loaded.precision) == ("shared", Precision.int4)
    with pytest.raises(UserError, match=r"was trained at int4, rounded to nearest; leave rounding=gptq out"):
        quantize_without_training(shared, options(quant=INT4), CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"checkpoint": None}, r"give checkpoint=RUN"),
        ({"quant": QuantConfig()}, r"quant=float has no rules.*quant=int4"),
        ({"calibration_utterances": 0}, r"calibration_utterances=0, but rounding=gptq needs speech"),
        (
            {"calibration_utterances": 0, "quant": STATIC, "rounding": Rounding.nearest},
            r"calibration_utterances=0, but static activation scales need speech",
        ),
        ({"calibration_utterances": -1}, r"calibration_utterances=-1; give at least 0"),
    ],
)
def test_options_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        options(**values)

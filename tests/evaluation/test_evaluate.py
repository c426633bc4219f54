import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from example_batch import random_batch

from nibble.data.options import Condition, DataOverrides, TextCase
from nibble.device import choose_device
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate, evaluate_checkpoints, evaluate_loaded
from nibble.evaluation.finished_run import evaluate_run
from nibble.evaluation.options import EvaluateConfig, Search
from nibble.evaluation.printing import comparison, print_results
from nibble.evaluation.size import measure_size
from nibble.hardware import HardwareConfig
from nibble.model.decoding import Hypothesis
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import bundle_bytes, write_bundle
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.records import read
from nibble.runs.speech import remember
from nibble.terminal import Console

CPU = HardwareConfig(threads=1, workers=0)
INT4 = QuantConfig("int4", [Rule(weight=WeightSpec(bits=4), activation=ActivationSpec())])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # data/ and runs/ appear here


def options(run: Path, **values: object) -> EvaluateConfig:
    return EvaluateConfig(checkpoint=str(run), hardware=CPU, **values)  # type: ignore[arg-type]


def shown(print_to) -> str:
    console = Console(width=200, file=io.StringIO())
    print_to(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_measures_prints_and_records(write_run) -> None:
    (result,) = evaluate_checkpoints(options(write_run("int4", "rules")))
    (record,) = read(Path("runs/records.jsonl"))
    assert record == result.record
    assert (record.experiment, record.part, record.model, record.quant) == ("tiny", "dev-tiny", "tiny", "int4")
    assert (record.method, record.seed, record.threads, record.backend) == ("qat", 1, 1, "native greedy")
    assert len(record.utterance_errors) == 4
    assert record.substitutions + record.deletions + record.insertions == sum(e for _, e, _ in record.utterance_errors)
    assert record.rtf > 0
    assert record.float32_bytes == 4 * record.parameters
    assert record.ratio == record.float32_bytes / record.bundle_bytes
    text = shown(lambda console: print_results([result], console))
    for part in (
        "WER",
        "substitutions",
        "95 %",
        "integers: 9",
        "in 16 bits",
        "_scale (",
        "RTF",
        "CPU threads: 1",
        "ref ",
        "hyp ",
    ):
        assert part in text


def test_a_bundle_scores_as_its_checkpoint(write_run, tmp_path: Path) -> None:
    run = write_run("int4", "rules")
    loaded = load_checkpoint(run)
    for name, tensor in loaded.model.state_dict().items():
        if not name.endswith("weight") and tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    size = write_bundle(loaded, tmp_path / "bundle")
    results = [evaluate_loaded(one, options(run))[0] for one in (loaded, load_checkpoint(tmp_path / "bundle"))]
    both = [result.record for result in results]
    assert both[0].utterance_errors == both[1].utterance_errors
    assert both[0].bundle_bytes == both[1].bundle_bytes == size
    texts = [{one.id: one.hypothesis for one in result.transcripts} for result in results]
    ids = [id_ for id_, _, _ in both[0].utterance_errors]
    same = [ours == theirs for ours, theirs in zip(both[0].text_hashes, both[1].text_hashes, strict=True)]
    assert same == [texts[0][id_] == texts[1][id_] for id_ in ids]


def test_several_checkpoints_are_compared(write_run) -> None:
    runs = [write_run("int4", "float"), write_run("int4", "rules")]
    results = evaluate_checkpoints(EvaluateConfig(checkpoint=[str(run) for run in runs], hardware=CPU, records=None))
    assert [result.record.method for result in results] == ["float", "qat"]
    assert not Path("results").exists()
    text = shown(lambda console: console.print(comparison(results)))
    assert "int4 (qat)" in text
    assert "difference to the first" in text
    assert "steps" not in text
    longer = replace(results[1], record=replace(results[1].record, steps=1234))
    assert "1,234" in shown(lambda console: console.print(comparison([results[0], longer])))
    other = replace(results[1], record=replace(results[1].record, utterance_errors=[("z", 0, 1)], text_hashes=[]))
    assert "other utterances" in shown(lambda console: console.print(comparison([results[0], other])))


def test_float_weights_quantized_without_training(write_run) -> None:
    run = write_run()
    (floating,) = evaluate_checkpoints(options(run))
    (quantized,) = evaluate_checkpoints(options(run, quant=INT4))
    assert (floating.record.quant, floating.record.method, floating.record.backend) == (
        "float",
        "float",
        "float greedy",
    )
    assert (quantized.record.quant, quantized.record.method) == ("int4", "ptq")
    assert floating.record.parameters == quantized.record.parameters
    assert floating.record.ratio < 1 < quantized.record.ratio
    assert floating.record.config_hash != quantized.record.config_hash


def test_parts_searches_and_a_share(write_run) -> None:
    run = write_run()
    (record,) = [r.record for r in evaluate_checkpoints(options(run, part="test", decoding=Search.beam, beam_width=2))]
    assert (record.part, record.backend) == ("test-tiny", "float beam2")
    (record,) = [
        r.record for r in evaluate_checkpoints(options(run, part=["dev", "test-tiny", "dev-tiny"], max_utterances=3))
    ]
    assert record.part == "dev-tiny+test-tiny"
    assert len(record.utterance_errors) == 3


def test_other_speech_than_in_training(write_run, tiny_corpus: Path, tmp_path: Path) -> None:
    run = write_run()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my-dev").symlink_to(tiny_corpus / "LibriSpeech" / "test-tiny")
    overrides = DataOverrides(corpus_dir=str(tmp_path / "elsewhere"), dev_parts=["my-dev"], text_case=TextCase.lower)
    (result,) = evaluate_checkpoints(options(run, data=overrides))
    assert result.record.part == "my-dev"
    assert all(one.reference.islower() for one in result.transcripts)
    with pytest.raises(UserError, match="nowhere"):
        evaluate_checkpoints(options(run, data=DataOverrides(corpus_dir="nowhere")))


def test_from_another_folder_the_corpus_of_the_run_is_used(
    write_run, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run()
    (expected,) = evaluate_checkpoints(options(run, records=None))
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "data/digits").symlink_to(tiny_corpus)
    checkpoint = run / "checkpoints/last.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    saved["nibble"]["config"]["data"] |= {"corpus": "digits", "corpus_dir": None}
    torch.save(saved, checkpoint)
    monkeypatch.chdir(home)
    remember(run, home / "data/digits/LibriSpeech")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    (result,) = evaluate_checkpoints(options(run, records=None))
    assert result.record.utterance_errors == expected.record.utterance_errors
    assert result.record.corpus == "digits"
    assert not list(Path().iterdir())
    (home / "data").rename(home / "moved")
    with pytest.raises(UserError, match=r"was in .*home/data/digits/LibriSpeech and has moved; say where"):
        evaluate_checkpoints(options(run, records=None))


def test_a_finished_run_gets_a_bundle_with_its_figures_on_the_card(write_run) -> None:
    run = write_run("int4", "rules")
    record = evaluate_run(run).record
    assert (run / "bundle" / "model.safetensors").is_file()
    assert record.bundle_bytes == bundle_bytes(run / "bundle")
    assert record.ratio == record.float32_bytes / record.bundle_bytes
    card = (run / "bundle" / "README.md").read_text()
    assert f"Word error rate: **{100 * record.wer:.2f} %**" in card
    assert f"{record.reference_words:,} words in 4 utterances" in card


def test_a_folder_s_name_is_printed_as_it_is(write_run, tmp_path: Path) -> None:
    run = write_run().rename(tmp_path / "run[red]")
    assert f"{run}/bundle: " in shown(lambda console: evaluate_run(run, console)).replace("\n", "")


def test_the_budget_is_printed_beside_the_measurement(write_run) -> None:
    hardware = replace(CPU, max_bundle_bytes=1, max_rtf=1e9)
    results = evaluate_checkpoints(EvaluateConfig(checkpoint=str(write_run()), hardware=hardware, records=None))
    text = shown(lambda console: print_results(results, console))
    assert "budget 1: exceeded" in text
    assert "budget 1,000,000,000.0: kept" in text


def test_every_utterance_is_recognised_once_and_time_counts(write_run) -> None:
    loaded = load_checkpoint(write_run())
    measured = evaluate(loaded, [])
    assert measured.transcripts == []
    assert (measured.score.wer, measured.rtf) == (0.0, 0.0)

    def silent(_model: object, _encoded: torch.Tensor, lengths: torch.Tensor) -> list[Hypothesis]:
        return [Hypothesis([], [], 0.0) for _ in lengths]

    measured = evaluate(loaded, [random_batch()], silent)
    assert [row.id for row in measured.transcripts] == ["a", "b"]
    assert (measured.score.deletions, measured.score.wer) == (3, 1.0)
    assert measured.rtf > 0


def test_what_stays_in_16_bits_adds_up(write_run) -> None:
    size = measure_size(load_checkpoint(write_run("int4", "rules")))
    values = sum(group.values for group in size.sixteen_bit)
    assert 0 < values < size.parameters / 4
    assert size.bundle_bytes > size.parameters / 2 + 2 * values
    names = [group.name for group in size.sixteen_bit]
    assert "encoder.**.weight_scale" in names
    assert "predictor.projection.bias" in names, "a tensor that is alone has its whole name"
    assert len(names) == len(set(names)) < 20
    assert measure_size(load_checkpoint(write_run())).sixteen_bit == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"checkpoint=RUN"),
        ({"checkpoint": "a", "experiment": "b"}, r"either checkpoint=RUN"),
        ({"checkpoint": "a", "beam_width": 0}, "beam_width=0"),
        ({"checkpoint": "a", "max_utterances": 0}, "max_utterances=0"),
        ({"checkpoint": 3}, "checkpoint=3"),
        ({"checkpoint": ["a", ""]}, "checkpoint="),
    ],
)
def test_options_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluateConfig(hardware=CPU, **values)  # type: ignore[arg-type]


def test_a_gpu_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"can use no GPU here.*hardware=cpu"):
        choose_device(HardwareConfig(accelerator="gpu"))
    assert choose_device(HardwareConfig(accelerator="auto")) == torch.device("cpu")


def test_a_model_is_evaluated_under_conditions(fitted_run) -> None:
    run = fitted_run("stateless")
    results = evaluate_checkpoints(options(run, condition=["unchanged", "quieter_12db", "silence_1s", "silence_alone"]))
    plain, quieter, padded, alone = (result.record for result in results)
    assert [record.condition.value for record in read(Path("runs/records.jsonl"))] == [
        "unchanged",
        "quieter_12db",
        "silence_1s",
        "silence_alone",
    ]
    assert plain.wer == 0, "it knows this speech by heart"
    assert padded.wer > 0, "and only as it was"
    assert len({record.config_hash for record in (plain, quieter, padded, alone)}) == 4
    assert (alone.substitutions, alone.deletions) == (0, 0)
    assert alone.reference_words == plain.reference_words
    assert alone.wer == alone.insertions / alone.reference_words
    text = shown(lambda console: print_results(results, console))
    for label in ("12 dB quieter", "1 s of silence before and after", "silence alone"):
        assert label in text
    assert text.count("of memory in use") == 1, "changed speech is in the table alone"


def test_all_conditions_are_meant_by_all_and_a_wrong_one_is_refused() -> None:
    assert EvaluateConfig(checkpoint="x", hardware=CPU).conditions == [Condition.unchanged]
    assert EvaluateConfig(checkpoint="x", hardware=CPU, condition="all").conditions == list(Condition)
    with pytest.raises(UserError, match=r"condition=echo; give all, or some of .*telephone"):
        EvaluateConfig(checkpoint="x", hardware=CPU, condition="echo")

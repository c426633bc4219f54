"""Evaluates trained models on parts of a corpus, and records the results."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nibble import provenance
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.feeding import Feeding
from nibble.data.options import Condition
from nibble.device import choose_device
from nibble.errors import UserError
from nibble.evaluation.footprints import checkpoint_footprint, export_footprint
from nibble.evaluation.measuring import Measured, measure
from nibble.evaluation.options import Backend, EvaluateConfig, Search
from nibble.evaluation.recognisers import Decoder, Recogniser, onnx_network, torch_network
from nibble.evaluation.recording import Subject, Task, make_record
from nibble.evaluation.result import Result
from nibble.evaluation.scoring import all_scores, shown
from nibble.evaluation.sherpa import Sherpa
from nibble.evaluation.size import Size, measure_size
from nibble.evaluation.windowed import Windowed
from nibble.features.extractor import make_features
from nibble.features.options import FeatureStorage
from nibble.inference.fused import fuse
from nibble.kernels.implementations import used_by
from nibble.memory import Footprint
from nibble.model.decoding import beam, greedy
from nibble.progress import track
from nibble.quant.convert import draw_noise
from nibble.quant.spec import Arithmetic, Precision
from nibble.runs import records
from nibble.runs.backend import Inference
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.exported import Exported, read_exported
from nibble.runs.loaded import Loaded, float_parameters
from nibble.runs.locate import bundle_of, latest_run
from nibble.runs.run_folder import RunFolder
from nibble.runs.speech import speech


def evaluate(loaded: Loaded, batches: Iterable[Batch], decoder: Decoder = greedy) -> Measured:
    """Recognise all utterances of `batches` with a loaded model, on the device that it is on."""
    device = next(iter(loaded.model.state_dict().values())).device  # a frozen model has no parameters
    return measure(torch_network(loaded, decoder), batches, device)


def evaluate_checkpoints(options: EvaluateConfig) -> list[Result]:
    """Evaluate each checkpoint that the options name under each condition, and append a record for each.

    Raises:
        UserError: a checkpoint, the corpus or the machine does not allow it; the text says which.
    """
    paths = [Path(path) for path in options.checkpoints] or [latest_run(str(options.experiment))]
    results = []
    for path in paths:
        if options.backend.reads_export:
            results += evaluate_exported(path, options)
            continue
        path = bundle_of(path) if options.backend is Backend.bundle else path
        loaded = load_checkpoint(path, options.size)
        if options.quant is not None:
            loaded = quantize(loaded, options.quant)
        results += evaluate_loaded(loaded, options, checkpoint_footprint(path, options.quant, options.size))
    return results


def evaluate_loaded(loaded: Loaded, options: EvaluateConfig, memory: Footprint | None = None) -> list[Result]:
    """Evaluate one model on the parts that the options name, and append its record under each condition.

    Args:
        loaded: the model; the encoder of a bundle is fused.
        options: of the command.
        memory: what loading and running it takes, if that was measured.
    """
    device = choose_device(options.hardware)
    loaded.model.to(device)
    recognise = torch_network(loaded, _decoder(options))
    if loaded.frozen:
        fuse(loaded.model)
    arithmetic, machine = _arithmetic(loaded), provenance.hardware(device)
    if arithmetic is Arithmetic.native:
        machine += f", kernels: {used_by('linear_w4a8', device.type)}"
    inference = Inference(options.backend, arithmetic.value if arithmetic else "float", _beam_width(options))
    return _evaluate(Subject(loaded, recognise, measure_size(loaded), inference, device, machine, memory), options)


def evaluate_exported(folder: Path, options: EvaluateConfig) -> list[Result]:
    """Evaluate a folder that `python -m nibble.export` wrote, with ONNX Runtime or sherpa-onnx.

    sherpa-onnx computes log-mel features itself; their time is within its real-time factor.
    """
    if options.hardware.accelerator not in ("cpu", "auto"):
        raise UserError(f"backend={options.backend.value} runs on the CPU; use hardware=cpu")
    exported = read_exported(folder)
    threads = options.hardware.threads or torch.get_num_threads()
    recognise: Recogniser[Any]
    version = ""
    if options.backend is Backend.onnx:
        recognise = onnx_network(exported, _decoder(options), threads)
    else:
        recognise = Sherpa(exported, _beam_width(options) or 1, threads)
        version = recognise.version
    size = Size(float_parameters(exported.config, exported.tokenizer.size), exported.size_bytes, None)
    inference = Inference(options.backend, exported.encoding.value, _beam_width(options), version)
    # One by one, as sherpa-onnx does: the scales of quantized activations are those of an utterance.
    options = replace(options, hardware=replace(options.hardware, max_batch_utterances=1))
    memory = export_footprint(exported, options.backend)
    cpu, machine = torch.device("cpu"), provenance.hardware()
    return _evaluate(Subject(exported, recognise, size, inference, cpu, machine, memory), options)


def _evaluate(subject: Subject, options: EvaluateConfig) -> list[Result]:
    if options.hardware.threads:
        torch.set_num_threads(options.hardware.threads)
    return [_evaluate_under(condition, subject, options) for condition in options.conditions]


def _evaluate_under(condition: Condition, subject: Subject, options: EvaluateConfig) -> Result:
    model, device = subject.model, subject.device
    config, root = speech(model.config, RunFolder.of(model.path).path, options.data)
    # With samples, for sherpa-onnx and to cut what is long; stored features would come without.
    features = replace(config.features, storage=FeatureStorage.on_the_fly)
    # On a CPU, loader processes would compete with what is timed.
    hardware = replace(options.hardware, workers=0) if device.type == "cpu" else options.hardware
    feeding = Feeding(model.tokenizer, keep_samples=True, condition=condition)
    data = SpeechDataModule(config.data, features, hardware, config.seed, root, feeding)
    parts = _parts(data, options)
    title = f"{model.path.name} on {'+'.join(parts)}" + (
        f", {condition}" if condition is not Condition.unchanged else ""
    )
    batch_s = 0.0 if hardware.max_batch_utterances == 1 else hardware.batch_duration_s
    _draw(model, 0, options.draws)

    def recognised() -> Measured:
        recognise = Windowed(subject.recognise, make_features(features), model.config.data.max_duration_s, batch_s)
        batches = _batches(data, parts, title, options.max_utterances)
        return measure(recognise, batches, device)._replace(windowed=recognise.utterances)

    measured = recognised()
    if not measured.score.reference_words:
        raise UserError(f"{'+'.join(parts)} has no reference words, so there is no error rate; give another part=")
    scores = all_scores(measured.transcripts, data.cuts(parts), options, condition)
    record = make_record(subject, options, Task(data.corpus_name, parts, condition), measured, scores)
    if options.draws > 1:
        draws = [record.wer]
        for draw in range(1, options.draws):
            _draw(model, draw, options.draws)
            draws.append(all_scores(recognised().transcripts, data.cuts(parts), options, condition).main.wer)
        record = replace(record, draws=draws)
    if options.records is not None:
        records.append(Path(options.records), record)
    transcripts = [shown(one, options.ignored, scores.main.units) for one in measured.transcripts]
    return Result(record, transcripts, subject.size, options.hardware)


def _draw(model: Loaded | Exported, draw: int, draws: int) -> None:
    """Draw the noise of analog weights, if the model has some.

    Raises:
        UserError: several draws are asked for, and it has none.
    """
    analog = draw_noise(model.model, draw) if isinstance(model, Loaded) else 0
    if draws > 1 and not analog:
        raise UserError(
            f"draws={draws}: {model.path} is at {model.quant}, whose weights have no noise; give quant=analog, a model "
            "that was trained with it, or draws=1"
        )


def _parts(data: SpeechDataModule, options: EvaluateConfig) -> list[str]:
    """The names of the parts to evaluate: `dev` and `test` stand for all of their kind."""
    parts: list[str] = []
    for part in options.parts or ["dev"]:
        parts.extend(data.parts(part) if part in ("train", "dev", "test") else [part])
    return list(dict.fromkeys(parts))


def _batches(data: SpeechDataModule, parts: list[str], title: str, limit: int | None) -> Iterable[Batch]:
    """The batches of `parts` with a progress bar; with a limit, of so many utterances evenly spread."""
    total = len(data.cuts(parts))
    return track(data.dataloader(parts, most=limit), title, min(total, limit or total), size=len)


def _arithmetic(loaded: Loaded) -> Arithmetic | None:
    """How products are computed in evaluation; None in float. Noise is for training alone."""
    if loaded.precision is Precision.float:
        return None
    return Arithmetic.fake if loaded.config.quant.arithmetic is Arithmetic.fake else Arithmetic.native


def _beam_width(options: EvaluateConfig) -> int | None:
    return None if options.decoding is Search.greedy else options.beam_width


def _decoder(options: EvaluateConfig) -> Decoder:
    return greedy if options.decoding is Search.greedy else partial(beam, width=options.beam_width)

"""Recognise a part of a corpus with a trained model, score it, and record the result."""

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nibble import provenance
from nibble.config import plain
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.evaluation.options import Backend, EvaluateConfig, Search
from nibble.evaluation.printing import print_results
from nibble.evaluation.recognisers import Decoder, Network, Recogniser, Sherpa, onnx_network
from nibble.evaluation.result import Result, Transcript
from nibble.evaluation.size import Size, measure_size
from nibble.evaluation.wer import Score, score
from nibble.features.options import FeatureStorage
from nibble.hardware import HardwareConfig
from nibble.inference.fused import fuse
from nibble.kernels.gpu import missing_gpu
from nibble.kernels.implementations import used_by
from nibble.memory import peak_bytes
from nibble.model.decoding import beam, greedy
from nibble.model.transducer import Transducer
from nibble.progress import track
from nibble.quant.spec import Arithmetic, Precision
from nibble.runs import records
from nibble.runs.bundle import bundle_bytes, export_bundle
from nibble.runs.card import Measured, write_card
from nibble.runs.checkpoint import bundle_of, latest_run, load_checkpoint, quantize, run_folder
from nibble.runs.exported import Exported, read_exported
from nibble.runs.loaded import Loaded, float_parameters
from nibble.runs.records import Record
from nibble.runs.speech import speech
from nibble.terminal import Console


class Evaluation(NamedTuple):
    """What `evaluate` measures."""

    score: Score
    transcripts: list[Transcript]
    rtf: float  # time of encoder and search / duration of the audio


def evaluate(
    model: Transducer, tokenizer: Tokenizer, batches: Iterable[Batch], decoder: Decoder = greedy
) -> Evaluation:
    """Recognise all utterances of `batches`, on the device that the model is on.

    The real-time factor is the time of encoder and search in one process over the duration of the audio, batched as
    the loader does it; log-mel features are computed by the loader and are not in it.
    """
    device = next(iter(model.state_dict().values())).device  # a frozen model has no parameters
    return measure(Network(model, tokenizer, decoder), batches, device)


def measure(recognise: Recogniser, batches: Iterable[Batch], device: torch.device) -> Evaluation:
    """As `evaluate`, of anything that recognises batches."""
    transcripts: list[Transcript] = []
    processing_s = audio_s = 0.0
    for batch in batches:
        inputs = batch.to(device)
        started_s = _now_s(device)
        recognised = recognise(inputs)
        processing_s += _now_s(device) - started_s
        audio_s += batch.duration_s
        transcripts += map(Transcript, batch.ids, batch.texts, recognised)
    return Evaluation(
        score(*([row[column] for row in transcripts] for column in range(3))),
        transcripts,
        processing_s / audio_s if audio_s else 0.0,
    )


def evaluate_checkpoints(options: EvaluateConfig) -> list[Result]:
    """Evaluate each checkpoint that the options name, and append a record for each.

    Raises:
        UserError: a checkpoint, the corpus or the machine does not allow it; the text says which.
    """
    paths = [Path(path) for path in options.checkpoints] or [latest_run(str(options.experiment))]
    results = []
    for path in paths:
        if options.exported:
            results.append(evaluate_exported(path, options))
            continue
        loaded = load_checkpoint(bundle_of(path) if options.backend is Backend.bundle else path)
        if options.quant is not None:
            loaded = quantize(loaded, options.quant)
        results.append(evaluate_loaded(loaded, options))
    return results


def evaluate_loaded(loaded: Loaded, options: EvaluateConfig) -> Result:
    """Evaluate one model on the parts that the options name, and append its record.

    The encoder of a bundle is fused.
    """
    device = choose_device(options.hardware)
    recognise = Network(loaded.model.to(device), loaded.tokenizer, _decoder(options))
    if loaded.frozen:
        fuse(loaded.model)
    backend, machine = _backend(loaded, options), provenance.hardware(device)
    if _computes_integers(loaded):
        machine += f", kernels: {used_by('linear_w4a8', device.type)}"
    return _evaluate(loaded, recognise, options, measure_size(loaded), device, backend, machine)


def evaluate_exported(folder: Path, options: EvaluateConfig) -> Result:
    """As `evaluate_loaded`, of a folder that `python -m nibble.export` wrote, with ONNX Runtime or sherpa-onnx.

    With sherpa-onnx its log-mel features, which it computes itself, are within the real-time factor.
    """
    if options.hardware.accelerator not in ("cpu", "auto"):
        raise UserError(f"backend={options.backend.value} runs on the CPU; use hardware=cpu")
    exported = read_exported(folder)
    threads = options.hardware.threads or torch.get_num_threads()
    size = Size(float_parameters(exported.config, exported.tokenizer.size), exported.size_bytes, None)
    recognise: Recogniser
    if options.backend is Backend.onnx:
        recognise = onnx_network(folder, exported.tokenizer, _decoder(options), threads)
        backend = "onnx"
    else:
        beam_width = 1 if options.decoding is Search.greedy else options.beam_width
        recognise = Sherpa(exported, beam_width, threads)
        backend = f"sherpa {recognise.version}"
    backend = f"{backend} {exported.encoding.value} {_search(options)}"
    # One by one, as sherpa-onnx does: the scales of quantized activations are those of an utterance.
    options = replace(options, hardware=replace(options.hardware, max_batch_utterances=1))
    return _evaluate(exported, recognise, options, size, torch.device("cpu"), backend, provenance.hardware())


def _evaluate(
    model: Loaded | Exported,
    recognise: Recogniser,
    options: EvaluateConfig,
    size: Size,
    device: torch.device,
    backend: str,
    machine: str,
) -> Result:
    if options.hardware.threads:
        torch.set_num_threads(options.hardware.threads)
    config, root = speech(model.config, run_folder(model.path), options.data)
    features = replace(config.features, storage=FeatureStorage.on_the_fly) if options.exported else config.features
    # On a CPU, loader processes would compete with what is timed.
    hardware = replace(options.hardware, workers=0) if device.type == "cpu" else options.hardware
    data = SpeechDataModule(config.data, features, hardware, config.seed, root)
    data.keep_samples = options.backend is Backend.sherpa
    data.tokenizer = model.tokenizer
    parts = _parts(data, options)
    batches = _batches(data, parts, f"{model.path.name} on {'+'.join(parts)}", options.max_utterances)
    measured = measure(recognise, batches, device)
    if not measured.score.reference_words:
        raise UserError(f"{'+'.join(parts)} has no reference words, so there is no error rate; give another part=")
    record = _record(model, options, data.corpus_name, parts, measured, size, backend, machine)
    if options.records is not None:
        records.append(Path(options.records), record)
    return Result(record, measured.transcripts, size, options.hardware)


def evaluate_run(folder: Path, console: Console | None = None) -> Result:
    """Write `bundle/` of a finished run, evaluate it on the dev parts, and write that on its card.

    Args:
        folder: the run; its best checkpoint is used, else its last.
        console: prints the result there; None prints nothing.

    Returns:
        what was found; no record is appended.
    """
    trained = load_checkpoint(folder)
    config = trained.config
    written = export_bundle(trained, folder / "bundle")
    if console is not None:  # before the evaluation, which may take long
        size = Size(float_parameters(config, trained.tokenizer.size), written, [])
        console.print(f"{folder / 'bundle'}: {written:,} bytes in all, {size.ratio:.2f}× smaller than float32")
    options = EvaluateConfig(
        checkpoint=str(folder / "bundle"),
        hardware=config.hardware,
        max_utterances=config.trainer.max_validation_utterances,
        records=None,
    )
    (result,) = evaluate_checkpoints(options)
    result.record = _on_card(folder / "bundle", trained, result.record)
    if console is not None:
        print_results([result], console)
    return result


def _on_card(bundle: Path, trained: Loaded, record: Record) -> Record:
    """Write what was measured on the bundle's card; the record with the bytes of the bundle as it is then."""
    measured = Measured(
        corpus=record.corpus,
        part=record.part,
        wer=record.wer,
        wer_ci95=record.wer_ci95,
        words=record.reference_words,
        utterances=len(record.utterance_errors),
        backend=record.backend,
    )
    write_card(bundle, trained.config, trained.notes, trained.tokenizer.size, measured)
    size = bundle_bytes(bundle)
    return replace(record, bundle_bytes=size, ratio=record.float32_bytes / size)


def choose_device(hardware: HardwareConfig) -> torch.device:
    """The one device to evaluate on.

    Raises:
        UserError: a GPU is asked for, and there is none that can be used.
    """
    if hardware.accelerator == "cpu" or (hardware.accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if (reason := missing_gpu()) is not None:
        raise UserError(
            f"hardware.accelerator={hardware.accelerator}: {reason}. Give hardware=cpu, or look at what nvidia-smi says"
        )
    return torch.device("cuda")


def _parts(data: SpeechDataModule, options: EvaluateConfig) -> list[str]:
    """The names of the parts to evaluate: `dev` and `test` stand for all of their kind."""
    parts: list[str] = []
    for part in options.parts or ["dev"]:
        parts.extend(data.parts(part) if part in ("train", "dev", "test") else [part])
    return list(dict.fromkeys(parts))


def _batches(data: SpeechDataModule, parts: list[str], title: str, limit: int | None) -> Iterable[Batch]:
    """The batches of `parts` with a progress bar; with a limit, of so many utterances evenly spread."""
    data.data = replace(data.data, dev_parts=parts)
    data.max_validation_utterances = limit
    total = len(data.cuts(parts))
    return track(data.val_dataloader(), title, min(total, limit or total), size=len)


def _record(
    model: Loaded | Exported,
    options: EvaluateConfig,
    corpus: str,
    parts: list[str],
    measured: Evaluation,
    size: Size,
    backend: str,
    machine: str,
) -> Record:
    config, measured_score = model.config, measured.score
    how: dict[str, Any] = {"parts": parts, "decoding": options.decoding.value, "max_utterances": options.max_utterances}
    if options.decoding is Search.beam:
        how["beam_width"] = options.beam_width
    return Record(
        experiment=config.name,
        corpus=corpus,
        part="+".join(parts),
        model=config.model.name,
        parameters=size.parameters,
        quant=model.quant,
        method=model.method,
        seed=config.seed,
        wer=measured_score.wer,
        substitutions=measured_score.substitutions,
        deletions=measured_score.deletions,
        insertions=measured_score.insertions,
        reference_words=measured_score.reference_words,
        wer_ci95=measured_score.wer_ci95,
        utterance_errors=measured_score.utterance_errors,
        bundle_bytes=size.bundle_bytes,
        float32_bytes=size.float32_bytes,
        ratio=size.ratio,
        rtf=measured.rtf,
        peak_bytes=peak_bytes(),
        threads=torch.get_num_threads(),
        backend=backend,
        hardware=machine,
        commit=provenance.commit(),
        command=provenance.command(),
        config_hash=provenance.config_hash({**plain(config), "evaluation": how}),
    )


def _backend(loaded: Loaded, options: EvaluateConfig) -> str:
    """Arithmetic and search."""
    read = "bundle " if options.backend is Backend.bundle else ""
    if loaded.precision is Precision.float:
        return f"{read}float {_search(options)}"
    return f"{read}{'native' if _computes_integers(loaded) else 'fake'} {_search(options)}"


def _computes_integers(loaded: Loaded) -> bool:
    """Noise is for training alone."""
    return loaded.precision is not Precision.float and loaded.config.quant.arithmetic is not Arithmetic.fake


def _search(options: EvaluateConfig) -> str:
    return "greedy" if options.decoding is Search.greedy else f"beam{options.beam_width}"


def _decoder(options: EvaluateConfig) -> Decoder:
    return greedy if options.decoding is Search.greedy else partial(beam, width=options.beam_width)


def _now_s(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

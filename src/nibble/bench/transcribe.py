"""Time and memory of whole transcription, from files to text: ours, and sherpa-onnx with the same model.

A contender reads recordings, computes log-mel features, encodes and searches greedily. sherpa-onnx runs three exports
of the model: in float, in float quantized by ONNX Runtime's own tool to int8, and ours. What ours does is timed part by
part as well: a part's ratio to the whole is its share of the time.

Weights are fresh. Blank is favoured until labels come as often as in speech, because search takes a step for each.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from nibble.bench.fresh import fresh_model, fresh_tokenizer
from nibble.bench.label_rate import favour_blank
from nibble.bench.records import Measurement, with_footprints
from nibble.bench.timing import Times, in_turns, measurements, torch_threads
from nibble.conventions import BLANK, SAMPLE_RATE_HZ
from nibble.data.audio import is_audio
from nibble.data.corpora.embedded import make_embedded
from nibble.data.samples import Samples
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.export.options import Encoding
from nibble.inference.footprint import Load, checkpoint, footprint, sherpa_folder
from nibble.inference.fused import fuse
from nibble.inference.reading import pieces
from nibble.inference.sherpa_recogniser import sherpa_recogniser
from nibble.inference.transcription import batch_features, recognise
from nibble.model.decoding import greedy
from nibble.packages import need
from nibble.progress import track
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.loaded import Loaded

MODEL = "conformer_l"
AT_ONCE, THREADS = (1, 16), (1, 2)
_ROUNDS = 7

TORCH, OURS = "float32, torch", "int4, torch"
PARTS = FEATURES, ENCODER, SEARCH = tuple(f"{OURS}: {part}" for part in ("features", "encoder", "search"))
SHERPA, SHERPA_INT8, SHERPA_OURS = (
    f"{name}, sherpa-onnx" for name in ("float32", "ONNX Runtime's int8 dynamic", "ours w4a8")
)
AUDIO = "its audio"
WHOLE = (TORCH, OURS, SHERPA, SHERPA_INT8, SHERPA_OURS)
PAIRS = [
    *((name, AUDIO) for name in WHOLE),
    *((OURS, other) for other in (TORCH, SHERPA, SHERPA_INT8)),
    *((SHERPA_OURS, other) for other in (SHERPA, SHERPA_INT8)),
    *((part, OURS) for part in PARTS),
]


def measure(speech: Path | None = None, model: str = MODEL, rounds: int = _ROUNDS) -> list[Measurement]:
    """One recording and sixteen at once, on one thread and on two.

    Args:
        speech: a folder of recordings, of which the first sixteen by name are heard; None for the embedded corpus.
        model: a configuration.
        rounds: in each of which every contender has its turn.

    Raises:
        UserError: a package that a contender needs is not installed, or the folder has no recordings.
    """
    for package, extra in (("onnx", "export"), ("sherpa_onnx", "export"), ("onnx_ir", "bench")):
        need(package, "python -m nibble.bench transcribe", extra)
    speech = speech or make_embedded(Path("data"))
    files = sorted(file for file in speech.rglob("*") if is_audio(file))[: max(AT_ONCE)]
    if not files:
        raise UserError(f"{speech} has no recordings; give a folder of them: corpus=FOLDER")
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory() as temporary, torch_threads(1):
        folders = _written(model, files, Path(temporary))
        loads: dict[str, Load] = {
            name: partial(checkpoint, folders[name], None)
            if name in (TORCH, OURS)
            else partial(sherpa_folder, to, False)
            for name, to in folders.items()
        }
        modules = ("nibble.inference.fused", "nibble.inference.transcription", "nibble.runs.checkpoint", "sherpa_onnx")
        spent = {name: footprint(load, *modules) for name, load in track(loads.items(), "measuring memory", len(loads))}
        for threads, count in product(THREADS, sorted({min(count, len(files)) for count in AT_ONCE})):
            with torch_threads(threads):
                heard_s, times = _timed(folders, files[:count], rounds, threads)
                case = f"{model}, {count} of {heard_s / count:.1f} s at once"
                found += measurements("transcribe", case, times, PAIRS, threads)
    return with_footprints(found, spent)


def _timed(
    folders: dict[str, Path], files: Sequence[Path], rounds: int, threads: int
) -> tuple[float, dict[str, Times]]:
    """Seconds of audio, and the times of all contenders."""
    networks = {name: read_bundle(folders[name]) for name in (TORCH, OURS)}
    fuse(networks[OURS].model)
    contenders: dict[str, Callable[[], object]] = {
        name: partial(_transcribe, loaded, files) for name, loaded in networks.items()
    }
    contenders |= _parts(networks[OURS], [_samples(file) for file in files])
    contenders |= {
        name: partial(_in_sherpa, sherpa_recogniser(folders[name], False, threads), files)
        for name in (SHERPA, SHERPA_INT8, SHERPA_OURS)
    }
    heard_s = sum(len(_samples(file)) for file in files) / SAMPLE_RATE_HZ
    times = in_turns(contenders, rounds, f"transcribing {len(files)} at once, threads: {threads}")
    return heard_s, times | {AUDIO: Times([1000 * heard_s] * rounds, [1000 * heard_s] * rounds)}


def _transcribe(loaded: Loaded, files: Sequence[Path]) -> list[str]:
    found = recognise(loaded, [_samples(file) for file in files])
    return [loaded.tokenizer.decode(hypothesis.ids) for hypothesis in found]


def _parts(loaded: Loaded, samples: Sequence[Samples]) -> dict[str, Callable[[], object]]:
    """What `recognise` does, each part on the results of the one before."""
    features, lengths = batch_features(loaded, samples)
    encode = torch.inference_mode()(loaded.model.encode)
    encoded = encode(features, lengths)
    return {
        FEATURES: partial(batch_features, loaded, samples),
        ENCODER: partial(encode, features, lengths),
        SEARCH: partial(torch.inference_mode()(greedy), loaded.model, *encoded),
    }


def _samples(file: Path) -> Samples:
    return np.concatenate(list(pieces(file)))


def _in_sherpa(recogniser: Any, files: Sequence[Path]) -> list[str]:
    streams = [recogniser.create_stream() for _ in files]
    for stream, file in zip(streams, files, strict=True):
        samples, rate_hz = soundfile.read(file, dtype="float32")
        stream.accept_waveform(rate_hz, samples)
    recogniser.decode_streams(streams)
    return [stream.result.text for stream in streams]


def _written(model: str, files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Bundles for torch and folders for sherpa-onnx, of one model."""
    from nibble.export.sherpa.folder import export_folder

    folders = {name: folder / str(number) for number, name in enumerate(WHOLE)}
    tokenizer = fresh_tokenizer(folder)
    floating, ours = (_fresh(model, quant, tokenizer) for quant in ("float", "int4"))
    some = [_samples(file) for file in files[:4]]
    duration_s = sum(map(len, some)) / SAMPLE_RATE_HZ
    bias = favour_blank(floating.model, *batch_features(floating, some), duration_s)
    with torch.no_grad():
        ours.model.joiner.output.bias[BLANK] = bias
    steps: list[tuple[str, Callable[[], object]]] = [
        (TORCH, lambda: write_bundle(floating, folders[TORCH])),
        (OURS, lambda: write_bundle(ours, folders[OURS])),
        (SHERPA, lambda: export_folder(folders[SHERPA], floating, Encoding.float)),
        (SHERPA_INT8, lambda: _by_onnxruntime(folders[SHERPA], folders[SHERPA_INT8])),
        (SHERPA_OURS, lambda: export_folder(folders[SHERPA_OURS], ours, Encoding.w4a8)),
    ]
    for _, write in track(steps, f"writing {model}", len(steps)):
        write()
    return folders


def _fresh(model: str, quant: str, tokenizer: Tokenizer) -> Loaded:
    """With a predictor that sherpa-onnx runs as it is: an LSTM's labels would be heard again at each step."""
    return fresh_model(model, quant, tokenizer, "model.predictor=stateless")


def _by_onnxruntime(source: Path, target: Path) -> None:
    """A float export whose encoder and joiner ONNX Runtime's tool has quantized, as icefall's exports are."""
    from nibble.bench.onnxruntime_tools import int8_dynamic, prepared

    shutil.copytree(source, target)
    for name in ("encoder", "joiner"):
        file = target / f"{name}.onnx"
        int8_dynamic(prepared(file)).replace(file)

"""Latency of streaming models on one thread: the time for a chunk, and the time until the first label.

A chunk is measured from its samples to its labels, in sherpa-onnx: log-mel features, encoder,
search. It gets noise, a chunk at a time. Weights are fresh and blank is made certain, so that every frame costs one
call of the joiner for each label it may emit; a label would add one of the decoder.

The first label cannot come before the first chunk: the wait for its samples, counted from the beginning of an
utterance, and then what they take. sherpa-onnx waits for one frame of features more than the 4 c + 3 of a chunk.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nibble.bench.fresh import fresh_model, fresh_tokenizer
from nibble.bench.records import Measurement, with_footprints, with_sizes
from nibble.bench.timing import Times, in_turns, measurements, torch_threads
from nibble.conventions import BLANK, SAMPLE_RATE_HZ
from nibble.data.tokenizer import Tokenizer
from nibble.evaluation.sherpa import load_sherpa
from nibble.export.options import Encoding
from nibble.features.extractor import make_features
from nibble.features.kaldi import FRAME_SHIFT_S, SHIFT_SAMPLES, WINDOW_SAMPLES
from nibble.inference.footprint import footprint, sherpa_folder
from nibble.inference.fused import fused_copy
from nibble.model.chunks import Chunks
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.streaming_search import Stream
from nibble.packages import need
from nibble.progress import track
from nibble.runs.exported import Exported
from nibble.runs.loaded import Loaded

MODELS = ("conformer_stream_s", "conformer_stream_l")
QUANTS = {  # float first: the others are compared with it
    Encoding.float: "float",
    Encoding.w8a8: "int8",
    Encoding.w4a8: "int4",
    Encoding.w4: "int4",
}
TORCH = "int4, torch"
AUDIO = "its audio"
_ROUNDS = 15
_CERTAIN = 1e4  # a bias larger than all logits


def measure(
    models: tuple[str, ...] = MODELS, encodings: tuple[Encoding, ...] = tuple(QUANTS), rounds: int = _ROUNDS
) -> list[Measurement]:
    """Each model in each encoding, against the time that its audio lasts, and against the first encoding.

    Raises:
        UserError: a package that is needed is not installed.
    """
    for package in ("onnx", "onnxruntime", "sherpa_onnx"):
        need(package, "python -m nibble.bench streaming")
    with tempfile.TemporaryDirectory() as temporary, torch_threads(1):
        tokenizer = fresh_tokenizer(Path(temporary))
        found = []
        for model in models:
            found += _measure(model, encodings, tokenizer, Path(temporary) / model, rounds)
        return found


def _measure(
    model: str, encodings: tuple[Encoding, ...], tokenizer: Tokenizer, folder: Path, rounds: int
) -> list[Measurement]:
    folders = {encoding: folder / encoding.value for encoding in encodings}
    written = {
        _name(encoding): _write(to, model, encoding, tokenizer)
        for encoding, to in track(folders.items(), f"writing {model}", len(folders))
    }
    sizes_bytes = {name: exported.size_bytes for name, exported in written.items()}
    recognisers = {name: load_sherpa(exported, beam_width=1, threads=1) for name, exported in written.items()}
    loaded = _loaded(model, "int4", tokenizer)
    encoder = loaded.model.encoder
    assert isinstance(encoder, StreamingEncoder), f"{model} streams"
    chunk_s = encoder.chunks.frames * encoder.factor * FRAME_SHIFT_S
    wait_s = first_chunk_samples(encoder.chunks) / SAMPLE_RATE_HZ

    each = {name: _in_sherpa(recogniser, chunk_s) for name, recogniser in recognisers.items()}
    each[TORCH] = _in_torch(loaded, chunk_s)
    times = in_turns(each, rounds, f"timing chunks of {model}") | _lasting(chunk_s, rounds)
    pairs = [(name, AUDIO) for name in each] + [(name, _name(encodings[0])) for name in written][1:]
    case = f"{model}, a chunk of {1000 * chunk_s:g} ms"
    found = with_sizes(measurements("streaming", case, times, pairs, threads=1), sizes_bytes)
    loads = {name: partial(sherpa_folder, exported.path, streams=True) for name, exported in written.items()}
    spent = {
        name: footprint(load, "sherpa_onnx") for name, load in track(loads.items(), "measuring memory", len(loads))
    }
    found = with_footprints(found, spent)

    begun = {name: _beginning(recogniser, wait_s) for name, recogniser in recognisers.items()}
    times = in_turns(begun, rounds, f"timing the first chunk of {model}")
    times = {name: _after(wait_s, of) for name, of in times.items()} | _lasting(wait_s, rounds)
    pairs = [(name, AUDIO) for name in begun]
    case = f"{model}, the first label after a wait of {1000 * wait_s:g} ms"
    return found + with_sizes(measurements("streaming", case, times, pairs, threads=1), sizes_bytes)


def first_chunk_samples(chunks: Chunks) -> int:
    """The samples that sherpa-onnx waits for before it encodes the first chunk."""
    frames = chunks.feature_frames() + 1
    return (frames - 1) * SHIFT_SAMPLES + (SHIFT_SAMPLES + WINDOW_SAMPLES) // 2


def _loaded(model: str, quant: str, tokenizer: Tokenizer) -> Loaded:
    loaded = fresh_model(model, quant, tokenizer)
    with torch.no_grad():
        loaded.model.joiner.output.bias[BLANK] = _CERTAIN
    return loaded


def _write(folder: Path, model: str, encoding: Encoding, tokenizer: Tokenizer) -> Exported:
    from nibble.export.sherpa.folder import export_folder

    loaded = _loaded(model, QUANTS[encoding], tokenizer)
    return export_folder(folder, loaded, encoding)[0]


def _name(encoding: Encoding) -> str:
    import sherpa_onnx

    return f"{encoding.value}, sherpa-onnx {sherpa_onnx.__version__}"


def _noise(duration_s: float) -> Tensor:
    return 0.1 * torch.randn(round(duration_s * SAMPLE_RATE_HZ), generator=torch.Generator().manual_seed(0))


def _in_sherpa(recogniser: Any, chunk_s: float) -> Callable[[], object]:
    """The next chunk of one long stream."""
    stream, samples = recogniser.create_stream(), _noise(chunk_s).numpy()

    def hear() -> None:
        stream.accept_waveform(SAMPLE_RATE_HZ, samples)
        while recogniser.is_ready(stream):
            recogniser.decode_stream(stream)

    return hear


def _beginning(recogniser: Any, first_s: float) -> Callable[[], object]:
    """The first chunk of a new stream."""
    samples = _noise(first_s).numpy()

    def hear() -> None:
        stream = recogniser.create_stream()
        stream.accept_waveform(SAMPLE_RATE_HZ, samples)
        recogniser.decode_stream(stream)

    return hear


def _in_torch(loaded: Loaded, chunk_s: float) -> Callable[[], object]:
    """As `_in_sherpa`."""
    stream, samples = Stream(fused_copy(loaded.model)), _noise(chunk_s)
    features = make_features(loaded.config.features)
    return lambda: stream.accept(features(samples))


def _lasting(duration_s: float, rounds: int) -> dict[str, Times]:
    return {AUDIO: Times([1000 * duration_s] * rounds, [1000 * duration_s] * rounds)}


def _after(wait_s: float, times: Times) -> Times:
    return Times(*([1000 * wait_s + ms for ms in clock] for clock in (times.cpu_ms, times.wall_ms)))

"""Memory and time of loading a model, in a process of its own, so that the figures of several don't mix."""

import importlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig
from nibble.inference.sherpa_recogniser import sherpa_recogniser
from nibble.memory import Footprint, high_water_bytes, resident_bytes, start_high_water
from nibble.own_process import in_process
from nibble.quant.spec import QuantConfig

_RUNS = 3
_NOISE_S = 10  # that each run recognises
Load = Callable[[], Callable[[], object]]  # loads, and gives what then runs


def footprint(load: Load, *modules: str) -> Footprint:
    """Measure the memory and time of loading and running a model on one thread.

    Args:
        load: is pickled, so it is a function of a module, or a `functools.partial` of one.
        modules: that `load` imports; they are imported before, so that neither their memory nor their time counts.

    Raises:
        UserError: the process was killed, as it is when memory runs out.
    """
    return in_process(partial(_measure, load, modules))


def _measure(load: Load, modules: tuple[str, ...]) -> Footprint:
    torch.set_num_threads(1)
    for module in modules:
        importlib.import_module(module)
    before = resident_bytes()
    start_high_water()
    started_s = time.perf_counter()
    run = load()
    load_s = time.perf_counter() - started_s
    loaded = resident_bytes()
    for _ in range(_RUNS):
        run()
    return Footprint(load_s, loaded - before, resident_bytes() - before, high_water_bytes() - before)


def checkpoint(path: Path, quant: QuantConfig | None, size: str | None = None) -> Callable[[], object]:
    """Loads a checkpoint or a bundle, quantized without training if `quant` is given; it recognises noise."""
    from nibble.inference.fused import fuse
    from nibble.inference.transcription import recognise
    from nibble.runs.checkpoint import load_checkpoint, quantize

    loaded = load_checkpoint(path, size)
    if quant is not None:
        loaded = quantize(loaded, quant)
    if loaded.frozen:
        fuse(loaded.model)
    return partial(recognise, loaded, [_noise()])


def onnx_folder(folder: Path, labels: int, options: FeatureConfig) -> Callable[[], object]:
    """Loads an exported folder into ONNX Runtime; it recognises noise.

    Args:
        folder: written by `python -m nibble.export`.
        labels: how many its tokenizer has.
        options: of its features.
    """
    from nibble.inference.onnx_transducer import onnx_transducer
    from nibble.model.decoding import greedy

    network = onnx_transducer(folder, threads=1, labels=labels)

    def hear() -> None:
        features = make_features(options)(torch.from_numpy(_noise()))
        greedy(network, *network.encode(features.unsqueeze(0), torch.tensor([len(features)])))

    return hear


def encoder_file(file: Path, frames: int, mel_bins: int) -> Callable[[], object]:
    """Loads an encoder of whole utterances into ONNX Runtime; it encodes noise."""
    from nibble.inference.onnx_session import session

    features = np.random.default_rng(0).standard_normal((1, frames, mel_bins), dtype=np.float32)
    return partial(session(file, threads=1).run, None, {"x": features, "x_lens": np.array([frames])})


def bundle_encoder(folder: Path, frames: int) -> Callable[[], object]:
    """Loads a bundle and fuses it, as `python -m nibble.transcribe` does; it encodes noise."""
    from nibble.inference.fused import fuse
    from nibble.runs.bundle import read_bundle

    model = read_bundle(folder).model
    fuse(model)
    features = torch.randn(1, frames, model.encoder.mel_bins, generator=torch.Generator().manual_seed(0))

    def encode() -> None:
        with torch.inference_mode():
            model.encode(features, torch.tensor([frames]))

    return encode


def sherpa_folder(folder: Path, streams: bool) -> Callable[[], object]:
    """Loads an exported folder into sherpa-onnx; it recognises noise."""
    recogniser = sherpa_recogniser(folder, streams, threads=1)
    samples = _noise()

    def hear() -> None:
        stream = recogniser.create_stream()
        stream.accept_waveform(SAMPLE_RATE_HZ, samples)
        if streams:
            while recogniser.is_ready(stream):
                recogniser.decode_stream(stream)
        else:
            recogniser.decode_stream(stream)

    return hear


def _noise() -> np.ndarray:
    """(samples,)"""
    return 0.1 * np.random.default_rng(0).standard_normal(_NOISE_S * SAMPLE_RATE_HZ, dtype=np.float32)

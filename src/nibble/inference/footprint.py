"""Memory and time of loading something, in a process of its own, so that the figures of several don't mix."""

import importlib
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.memory import high_water_bytes, resident_bytes, start_high_water

_RUNS = 3
Load = Callable[[], Callable[[], object]]  # loads, and gives what then runs


@dataclass(frozen=True)
class Footprint:
    """Memory is resident memory above that of the process before it loads: Python and its packages are not in it."""

    load_s: float
    loaded_bytes: int
    ran_bytes: int  # after three runs
    peak_bytes: int  # while loading and running


def footprint(load: Load, *modules: str) -> Footprint:
    """What loading costs on one thread.

    Args:
        load: is pickled, so a function of a module, or a `functools.partial` of one.
        modules: what it imports; done before, so that neither their memory nor their time counts.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (load, modules))


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


def encoder_file(file: Path, frames: int, mel_bins: int) -> Callable[[], object]:
    """Loads an encoder of whole utterances into ONNX Runtime; what it gives encodes noise."""
    from nibble.inference.onnx_transducer import session

    features = np.random.default_rng(0).standard_normal((1, frames, mel_bins), dtype=np.float32)
    return partial(session(file, threads=1).run, None, {"x": features, "x_lens": np.array([frames])})


def bundle_encoder(folder: Path, frames: int) -> Callable[[], object]:
    """Loads a bundle and fuses it, as `python -m nibble.transcribe` does; what it gives encodes noise."""
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
    """Loads an exported folder into sherpa-onnx; what it gives hears ten seconds of noise."""
    import sherpa_onnx

    kind: Any = sherpa_onnx.OnlineRecognizer if streams else sherpa_onnx.OfflineRecognizer
    files = {name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")}
    recogniser = kind.from_transducer(**files, tokens=str(folder / "tokens.txt"), num_threads=1)
    samples = 0.1 * np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE_HZ, dtype=np.float32)

    def hear() -> None:
        stream = recogniser.create_stream()
        stream.accept_waveform(SAMPLE_RATE_HZ, samples)
        if streams:
            while recogniser.is_ready(stream):
                recogniser.decode_stream(stream)
        else:
            recogniser.decode_stream(stream)

    return hear

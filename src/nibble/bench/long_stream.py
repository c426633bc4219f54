"""An hour through a model that streams, on one thread: whether its memory grows, and whether a chunk takes longer.

One stream, in a process of its own, hears noise chunk by chunk, as fast as it can, and is never reset. Labels come
about as often as in speech, or more often, so that what a recogniser remembers of them grows as it does in use.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nibble import provenance
from nibble.bench.fresh import fresh_model, fresh_tokenizer
from nibble.bench.label_rate import favour_blank
from nibble.bench.records import Measurement
from nibble.bench.timing import now, torch_threads
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.export.options import Encoding
from nibble.features.extractor import make_features
from nibble.features.kaldi import FRAME_SHIFT_S
from nibble.inference.fused import fuse
from nibble.inference.sherpa_recogniser import sherpa_recogniser
from nibble.inference.streaming import FeatureStream
from nibble.memory import resident_bytes
from nibble.model import streaming_search
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.own_process import in_process
from nibble.packages import need
from nibble.progress import track
from nibble.runs.bundle import read_bundle, write_bundle

MODEL = "conformer_stream_s"
HOUR_S = 3600
_NOISE_S = 40  # repeated
SHERPA, TORCH = "w4a8, sherpa-onnx", "int4, torch"


class Heard(NamedTuple):
    """What one stream took."""

    first_ms: float  # median CPU time of a chunk in the second tenth of the time; the first warms up
    last_ms: float  # in the last tenth
    before_bytes: int  # resident memory after the second tenth
    after_bytes: int  # and at the end
    labels: int


class Stream(NamedTuple):
    """One that hears noise."""

    chunk_s: float
    hear_chunk: Callable[[], object]  # the next
    labels: Callable[[], int]  # found so far


def measure(model: str = MODEL, duration_s: int = HOUR_S) -> list[Measurement]:
    """The last tenth of the time against the second, in sherpa-onnx and in torch.

    Raises:
        UserError: a package that is needed is not installed.
    """
    for package in ("onnx", "sherpa_onnx"):
        need(package, "python -m nibble.bench long_stream")
    with tempfile.TemporaryDirectory() as temporary:
        streams = _written(model, Path(temporary))
        found = []
        for name, open_stream in track(streams.items(), f"hearing {duration_s / 60:g} minutes", len(streams)):
            heard = in_process(partial(hear, open_stream, duration_s))
            found.append(
                Measurement(
                    bench="long_stream",
                    case=f"{model}, {duration_s / 60:g} minutes, {heard.labels:,} labels",
                    contender=f"{name}: the last tenth",
                    baseline="the second tenth",
                    ratio=heard.last_ms / heard.first_ms,
                    median_ms=heard.last_ms,
                    threads=1,
                    **provenance.here(),
                    clock="cpu",
                    loaded_bytes=heard.before_bytes,
                    ran_bytes=heard.after_bytes,
                )
            )
        return found


def hear(opened: Callable[[], Stream], duration_s: int) -> Heard:
    """Hear noise for so long, at least ten chunks."""
    with torch_threads(1):
        stream = opened()
        chunks = round(duration_s / stream.chunk_s)
        tenth = chunks // 10
        times_ms, before_bytes = [], 0
        for number in range(chunks):
            if number == 2 * tenth:
                before_bytes = resident_bytes()
            started = now()
            stream.hear_chunk()
            times_ms.append(1000 * (now().cpu_s - started.cpu_s))
    return Heard(
        first_ms=statistics.median(times_ms[tenth : 2 * tenth]),
        last_ms=statistics.median(times_ms[-tenth:]),
        before_bytes=before_bytes,
        after_bytes=resident_bytes(),
        labels=stream.labels(),
    )


def in_sherpa(folder: Path, chunk_s: float) -> Stream:
    """An exported folder in sherpa-onnx; its text is asked for after each chunk, as those do who show it."""
    recogniser = sherpa_recogniser(folder, True, threads=1)
    stream, noise = recogniser.create_stream(), _noise(chunk_s)

    def hear_chunk() -> None:
        stream.accept_waveform(SAMPLE_RATE_HZ, next(noise).numpy())
        while recogniser.is_ready(stream):
            recogniser.decode_stream(stream)
        recogniser.get_result(stream)

    return Stream(chunk_s, hear_chunk, lambda: len(recogniser.tokens(stream)))


def in_torch(folder: Path, chunk_s: float) -> Stream:
    """A bundle in torch, fused."""
    loaded = read_bundle(folder)
    fuse(loaded.model)
    stream, noise = streaming_search.Stream(loaded.model), _noise(chunk_s)
    features = FeatureStream(make_features(loaded.config.features))
    return Stream(chunk_s, lambda: stream.accept(features.accept(next(noise))), lambda: len(stream.hypothesis.ids))


def _noise(chunk_s: float) -> Iterator[Tensor]:
    """Chunks (samples,) without end, which repeat after a while."""
    samples = 0.1 * torch.randn(_NOISE_S * SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(0))
    return cycle(samples.split(round(chunk_s * SAMPLE_RATE_HZ)))


def _written(model: str, folder: Path) -> dict[str, Callable[[], Stream]]:
    """A model as a folder for sherpa-onnx and as a bundle."""
    from nibble.export.sherpa.folder import export_folder

    loaded = fresh_model(model, "int4", fresh_tokenizer(folder))
    encoder = loaded.model.encoder
    assert isinstance(encoder, StreamingEncoder), f"{model} streams"
    chunk_s = encoder.chunks.frames * encoder.factor * FRAME_SHIFT_S
    features = torch.stack([make_features(loaded.config.features)(torch.cat(list(islice(_noise(chunk_s), 30))))])
    lengths = torch.tensor([features.size(1)])
    favour_blank(loaded.model, features, lengths, duration_s=30 * chunk_s)
    export_folder(folder / "sherpa", loaded, Encoding.w4a8)
    write_bundle(loaded, folder / "bundle")
    return {
        SHERPA: partial(in_sherpa, folder / "sherpa", chunk_s),
        TORCH: partial(in_torch, folder / "bundle", chunk_s),
    }

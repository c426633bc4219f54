"""Log-mel features computed once and kept on disk."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from lhotse import Features as StoredFeatures
from lhotse import MonoCut
from lhotse.utils import fastcopy

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import decode, fingerprint, source
from nibble.data.cuts import Cuts
from nibble.features.extractor import Features, make_features
from nibble.features.options import FeatureConfig
from nibble.progress import track
from nibble.writing import make_folder_once


def with_stored_features(cuts: Cuts, config: FeatureConfig, folder: Path) -> Cuts:
    """`cuts` that load their (T, F) float32 features from below `folder`, computed if they aren't there yet.

    Where the features of a cut lie follows from its place among the cuts. No file says it, so none can say that they
    come out of a command.
    """
    extractor = make_features(config)
    what = f"{extractor.settings} {fingerprint(cuts)}"
    store = folder.resolve() / hashlib.sha256(what.encode()).hexdigest()[:16]
    make_folder_once(store, lambda partial: _compute(cuts, extractor, partial))
    return cuts.changed(lambda cut, number: _with_features(cut, extractor, store, number))


def _compute(cuts: Cuts, extractor: Features, folder: Path) -> None:
    for number, cut in enumerate(track(cuts, "computing features", len(cuts))):
        file = folder / _name(number)
        file.parent.mkdir(exist_ok=True)
        np.save(file, extractor(torch.from_numpy(decode(source(cut)))).numpy())


def _with_features(cut: MonoCut, extractor: Features, store: Path, number: int) -> MonoCut:
    features = StoredFeatures(
        type="kaldi-fbank",
        num_frames=extractor.frame_count(cut.num_samples),
        num_features=extractor.bins,
        frame_shift=extractor.shift_s,
        sampling_rate=SAMPLE_RATE_HZ,
        start=0.0,
        duration=cut.duration,
        storage_type="numpy_files",
        storage_path=str(store),
        storage_key=_name(number),
        recording_id=cut.recording_id,
        channels=0,
    )
    return fastcopy(cut, features=features)


def _name(number: int) -> str:
    """A thousand in a folder, as some file systems are slow with more."""
    return f"{number // 1000:04d}/{number % 1000:03d}.npy"

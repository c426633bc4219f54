"""Log-mel features computed once and kept on disk."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet, Features, MonoCut
from lhotse.utils import fastcopy

from nibble.data.audio import decode, fingerprint, source
from nibble.data.corpora.layout import make_whole
from nibble.features.kaldi import FRAME_SHIFT_S, SAMPLE_RATE, fbank, frame_count, log_mel
from nibble.features.options import FeatureConfig
from nibble.progress import track


def with_stored_features(cuts: CutSet, config: FeatureConfig, folder: Path) -> CutSet:
    """`cuts` that load their (T, F) float32 features from below `folder`, computed if they aren't there yet.

    Where the features of a cut lie follows from its place among the cuts. No file says it, so none can say that they
    come out of a command.
    """
    what = f"{fbank(config).config.to_dict()} {fingerprint(cuts)}"
    store = folder.resolve() / hashlib.sha256(what.encode()).hexdigest()[:16]
    make_whole(store, lambda partial: _compute(cuts, config, partial))
    return CutSet.from_cuts(_with_features(cut, config, store, number) for number, cut in enumerate(cuts))


def _compute(cuts: CutSet, config: FeatureConfig, folder: Path) -> None:
    for number, cut in enumerate(track(cuts, "computing features", len(cuts))):
        file = folder / _name(number)
        file.parent.mkdir(exist_ok=True)
        np.save(file, log_mel(torch.from_numpy(decode(source(cut))), config).numpy())


def _with_features(cut: MonoCut, config: FeatureConfig, store: Path, number: int) -> MonoCut:
    features = Features(
        type="kaldi-fbank",
        num_frames=frame_count(cut.num_samples),
        num_features=config.mel_bins,
        frame_shift=FRAME_SHIFT_S,
        sampling_rate=SAMPLE_RATE,
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

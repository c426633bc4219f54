"""Log-mel features computed once and kept on disk."""

import hashlib
from pathlib import Path

from lhotse import CutSet, NumpyFilesWriter

from nibble.config import FeatureConfig
from nibble.data.audio import fingerprint
from nibble.features import fbank
from nibble.writing import whole_file


def with_stored_features(cuts: CutSet, config: FeatureConfig, folder: Path) -> CutSet:
    """`cuts` that load their (T, F) float32 features from below `folder`, computed if they aren't there yet."""
    extractor = fbank(config)
    what = f"{extractor.config.to_dict()} {fingerprint(cuts)}"
    store = folder / hashlib.sha256(what.encode()).hexdigest()[:16]
    manifest = store / "cuts.jsonl.gz"
    if not manifest.is_file():
        made = cuts.compute_and_store_features(
            extractor, storage_path=store, storage_type=NumpyFilesWriter, progress_bar=True
        )
        with whole_file(manifest) as path:
            made.to_file(path)
    return CutSet.from_file(manifest).to_eager()

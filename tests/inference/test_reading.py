"""Recordings read piece by piece are what reading them whole gives."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from nibble.data import samples
from nibble.data.conversion import whole
from nibble.errors import UserError
from nibble.inference.reading import duration_s, pieces


def write(path: Path, rate_hz: int, channels: int = 1, **how: str) -> Path:
    random = np.random.default_rng(0)
    noise = np.cumsum(random.standard_normal((3 * rate_hz, channels)), axis=0)  # most of it below any new Nyquist
    soundfile.write(path, 0.5 * noise / np.abs(noise).max(), rate_hz, **how)
    return path


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000, 44_101])
def test_pieces_are_the_whole(tmp_path: Path, rate_hz: int) -> None:
    file = write(tmp_path / "x.wav", rate_hz, channels=2)
    found = np.concatenate(list(pieces(file, piece_s=0.7)))
    expected, _ = whole(file)
    assert duration_s(file) == 3.0
    assert len(found) == len(expected) == 48_000
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_floats_in_the_range_of_integers(tmp_path: Path) -> None:
    """The first piece is quiet enough to pass for samples in [-1, 1]; the last is not."""
    loud = np.linspace(0, 30_000, 48_000, dtype=np.float32)
    soundfile.write(tmp_path / "x.wav", loud, 16_000, subtype="FLOAT")
    found = np.concatenate(list(pieces(tmp_path / "x.wav", piece_s=0.01)))
    np.testing.assert_allclose(found, loud / 2**15, atol=1e-6)


def test_a_recording_longer_than_memory_has_no_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "x.flac", 16_000)
    monkeypatch.setattr(samples, "MAX_SAMPLES", 16_000)
    with pytest.raises(UserError, match="cut it into shorter ones"):
        whole(file)
    assert sum(map(len, pieces(file, piece_s=0.5))) == 48_000


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "short.flac").write_bytes(write(tmp_path / "whole.flac", 16_000).read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"short\.flac is (not audio that can be read, or is )?truncated"):
        list(pieces(tmp_path / "short.flac", piece_s=0.5))
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    for name, message in {"empty.wav": "holds no samples", "absent.wav": "does not exist"}.items():
        with pytest.raises(UserError, match=message):
            duration_s(tmp_path / name)

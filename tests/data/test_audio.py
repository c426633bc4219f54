"""Decoding once: the store holds the same samples as the files."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from nibble.data import audio
from nibble.data.audio import Waveforms, decode, source
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import read_part
from nibble.errors import UserError


def test_store_equals_files(tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = read_part(LibriSpeech(tiny_corpus / "LibriSpeech" / "train-tiny"), tmp_path)
    waveforms = Waveforms(tmp_path)
    waveforms.add(cuts, "train-tiny")
    expected = {source(cut): decode(source(cut)) for cut in cuts}
    monkeypatch.setattr(audio, "decode", lambda *_: pytest.fail("decoded again"))
    Waveforms(tmp_path).add(cuts, "train-tiny")
    for path, samples in expected.items():
        np.testing.assert_array_equal(waveforms.read(path), samples)
        np.testing.assert_array_equal(waveforms.read(path, 1000, 500), samples[1000:1500])
        np.testing.assert_array_equal(waveforms.read(path, len(samples) - 10, 500), samples[-10:])
    # A loader process that doesn't share this one's memory maps the file again.
    path = next(iter(expected))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(waveforms)).read(path), expected[path])


def test_long_corpora_are_decoded_each_time(tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = read_part(LibriSpeech(tiny_corpus / "LibriSpeech" / "dev-tiny"), tmp_path)
    monkeypatch.setattr(audio, "MAX_STORED_HOURS", 0.0)
    waveforms = Waveforms(tmp_path)
    waveforms.add(cuts, "dev-tiny")
    assert not list(tmp_path.glob("*.pcm"))
    path = source(cuts[0])
    np.testing.assert_array_equal(waveforms.read(path, 100, 50), decode(path)[100:150])


def test_shortened_store(tiny_corpus: Path, tmp_path: Path) -> None:
    cuts = read_part(LibriSpeech(tiny_corpus / "LibriSpeech" / "dev-tiny"), tmp_path)
    Waveforms(tmp_path).add(cuts, "dev-tiny")
    (store,) = tmp_path.glob("*.pcm")
    store.write_bytes(store.read_bytes()[:-2])
    with pytest.raises(UserError, match="remove it and start again"):
        Waveforms(tmp_path).add(cuts, "dev-tiny")


def test_file_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.flac cannot be read: No such file.*replace the file"):
        decode(tmp_path / "gone.flac")


def test_damage_in_the_middle_is_named(tiny_corpus: Path, tmp_path: Path) -> None:
    content = bytearray(next((tiny_corpus / "LibriSpeech").rglob("*.flac")).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    (tmp_path / "damaged.flac").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged.flac is .*truncated.*replace the file"):
        decode(tmp_path / "damaged.flac")

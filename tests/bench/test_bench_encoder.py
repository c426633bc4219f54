"""The encoder's contenders are all there, run, and stand in the file as the issue's targets want them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nibble import packages
from nibble.bench import encoder
from nibble.bench.records import Measurement, read
from nibble.errors import UserError
from nibble.export.options import Encoding
from nibble.memory import Footprint

COMMITTED = Path(__file__).parents[2] / "results" / "bench.jsonl"


def test_every_pair_is_measured(quick_footprint: Footprint, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime", "onnx_ir"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export,bench]'")
    monkeypatch.setattr(encoder, "footprint", lambda *_: quick_footprint)
    found = encoder.measure("conformer_xxs", duration_s=1, rounds=1)
    assert [(one.contender, one.baseline) for one in found] == encoder.PAIRS
    assert {(one.bench, one.case, one.threads, one.clock, one.rounds) for one in found} == {
        ("encoder", "conformer_xxs, 1 s", 1, "cpu", 1)
    }
    sizes = {one.contender: one.bytes for one in found}
    assert sizes[encoder.W4A8] < sizes[encoder.W8A8] < sizes[encoder.ORT] / 2
    assert sizes[encoder.W4A8] < sizes[encoder.ORT_INT8] < sizes[encoder.ORT]
    assert sizes[encoder.ORT_INT4] < sizes[encoder.ORT_INT8]  # so the tools found the products
    assert {name for name, size in sizes.items() if size is None} == {
        encoder.TORCH_CONV1D,
        encoder.TORCH_INT8,
        encoder.OURS,
    }


def test_weights_beyond_what_protobuf_holds_stand_in_a_file_beside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As of fastconformer_xl in float32; the tools quantize such a graph to what they make of one file."""
    for package in ("onnx", "onnxruntime", "onnx_ir"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export,bench]'")
    from nibble.bench import onnxruntime_tools as tools
    from nibble.bench.fresh import fresh_config, fresh_tokenizer

    tokenizer = fresh_tokenizer(tmp_path)
    bins = fresh_config("conformer_xxs", "float").features.mel_bins
    given = torch.randn(1, 100, bins), torch.tensor([100])
    found = []
    for most in (tools.MOST_BYTES, 0):
        monkeypatch.setattr(tools, "MOST_BYTES", most)
        folder = tmp_path / str(most)
        folder.mkdir()
        file = encoder._exported("conformer_xxs", "float", Encoding.float, tokenizer, folder)
        assert (folder / "float.onnx.data").is_file() == (most == 0)
        prepared = tools.prepared(file)
        made = [file, tools.int8_dynamic(prepared), tools.four_bits(prepared, integer_activations=True)]
        outputs = [encoder._in_onnxruntime(one, *given)()[0] for one in made]
        found.append((outputs, [tools.size_bytes(one) for one in made]))
    (whole, sizes), (parted, parted_sizes) = found
    for one, other in zip(whole, parted, strict=True):
        assert np.array_equal(one, other)
    assert parted_sizes == pytest.approx(sizes, rel=0.05)
    assert parted_sizes[2] < parted_sizes[1] < parted_sizes[0]


def test_without_the_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda package: None if package == "onnx_ir" else package)
    with pytest.raises(UserError, match=r"bench encoder needs onnx-ir: pip install -e '.\[bench\]'"):
        encoder.measure()


def claimed(contender: str, baseline: str) -> Measurement:
    found = [one for one in read(COMMITTED) if (one.bench, one.case) == ("encoder", "conformer_l, 10 s")]
    return [one for one in found if (one.contender, one.baseline) == (contender, baseline)][-1]


def test_what_is_claimed_of_conformer_l() -> None:
    assert claimed(encoder.W4A8, encoder.ORT).ratio <= 0.45
    ours, theirs = claimed(encoder.W4A8, encoder.ORT_INT8), claimed(encoder.ORT_INT8, encoder.ORT)
    assert ours.ratio <= 1.05
    assert ours.bytes is not None
    assert theirs.bytes is not None
    assert ours.bytes <= theirs.bytes / 2

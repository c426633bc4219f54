"""What others are given: bundles with checksums that fit, and folders for sherpa-onnx and ONNX Runtime."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from fuzzing import Kind, Write
from kinds_records import same
from mutations import RAW, as_json, broken, hostile
from safetensors.torch import load, load_file, save
from small import MEL_BINS, small_model

from nibble.config import plain
from nibble.export.options import Encoding
from nibble.model.decoding import greedy
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.description import CHECKED
from nibble.runs.exported import GRAPHS, read_exported
from nibble.runs.tensors import tensors_of

Files = dict[str, bytes]
FRAMES = 40


@cache
def whole_bundle(quant: str) -> Files:
    """The files of a bundle."""
    with tempfile.TemporaryDirectory() as place:
        write_bundle(small_model(Path(place), quant), Path(place) / "bundle")
        return {path.name: path.read_bytes() for path in sorted((Path(place) / "bundle").iterdir())}


def sign_bundle(files: Files, said: Any) -> bytes:
    """config.json with checksums that fit: what someone who means harm would write."""
    if not isinstance(said, dict):
        return json.dumps(said).encode()
    others = {name: value for name, value in said.items() if name != "sha256"}
    own = json.dumps(others, sort_keys=True, separators=(",", ":")).encode()
    sums = {name: hashlib.sha256(files[name]).hexdigest() for name in CHECKED}
    return json.dumps({**others, "sha256": {"config.json": hashlib.sha256(own).hexdigest(), **sums}}).encode()


def bundle_cases(seed: int, count: int) -> Iterator[tuple[str, Write]]:
    for number in range(count):
        draw = Random(f"bundle {seed} {number}")
        quant = "int4" if number == 0 else draw.choice(["int4", "int4", "int2_24", "float"])
        files = dict(whole_bundle(quant))
        wrong = "intact"
        if number:
            said = json.loads(files["config.json"])
            how = draw.choice([_description, _description, _tensors, _tensors, _tokenizer, _bytes, _raw])
            wrong, said = how(files, said, draw)
            files["config.json"] = said if isinstance(said, bytes) else sign_bundle(files, said)
        yield f"{quant}: {wrong}", lambda folder, files=files: write(folder, files)


def write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _description(_files: Files, said: Any, draw: Random) -> tuple[str, Any]:
    part = draw.choice(["all", "config", "model", "quant"])
    if part == "all":
        return hostile(said, draw)
    inside = said["config"] if part == "config" else said["config"][part]
    wrong, changed = hostile(inside, draw)
    if part == "config":
        said["config"] = changed
    else:
        said["config"][part] = changed
    return f"{part}: {wrong}", said


def _tensors(files: Files, said: Any, draw: Random) -> tuple[str, Any]:
    tensors = load(files["model.safetensors"])
    name = draw.choice(sorted(tensors))
    wrong, tensors[name] = draw.choice(TENSORS)(tensors[name], draw)
    files["model.safetensors"] = save(tensors)
    return f"{name} {wrong}", said


def _value(tensor: torch.Tensor, draw: Random) -> tuple[str, torch.Tensor]:
    value = draw.choice([0, 1, -1, 255, float("nan"), float("inf"), -float("inf"), 65504, 1e-7])
    changed = tensor.clone()
    with torch.no_grad():
        changed.view(-1)[draw.randrange(max(1, changed.numel())) :] = torch.tensor(value).to(changed.dtype)
    return f"is {value}", changed


TENSORS: list[Callable[[torch.Tensor, Random], tuple[str, torch.Tensor]]] = [
    _value,
    _value,
    lambda tensor, _draw: ("is of another type", tensor.to(torch.int16)),
    lambda tensor, _draw: ("is empty", tensor.view(-1)[:0].clone()),
    lambda tensor, _draw: ("has one dimension more", tensor[None].clone()),
    lambda tensor, _draw: ("is twice as long", torch.cat([tensor.view(-1)] * 2)),
]


def _tokenizer(files: Files, said: Any, draw: Random) -> tuple[str, Any]:
    name = draw.choice(["tokenizer.model", "tokenizer.model", "tokens.txt"])
    wrong, files[name] = draw.choice([broken, lambda _content, _draw: ("empty", b"")])(files[name], draw)
    return f"{name}: {wrong}", said


def _bytes(files: Files, said: Any, draw: Random) -> tuple[str, Any]:
    wrong, files["model.safetensors"] = broken(files["model.safetensors"], draw)
    return f"model.safetensors: {wrong}", said


def _raw(files: Files, _said: Any, draw: Random) -> tuple[str, Any]:
    raw = draw.choice(RAW)
    return f"config.json is {raw[:40]!r}", raw


def load_bundle(folder: Path) -> None:
    """Loaded, it is stored as it was, and recognises or says why not."""
    loaded = read_bundle(folder)
    said = {"heard_s": None} | json.loads((folder / "config.json").read_bytes())  # older bundles lack it
    same(
        {**loaded.notes, "config": plain(loaded.config)},
        {**{name: said[name] for name in loaded.notes}, "config": said["config"]},
    )
    found = tensors_of(loaded)
    stored = load_file(folder / "model.safetensors")
    assert found.keys() == stored.keys()
    for name, tensor in stored.items():
        assert torch.equal(found[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), name
    recognise(loaded.model, loaded.tokenizer, loaded.config.features.mel_bins)


def recognise(model: Any, tokenizer: Any, mel_bins: int) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        encoded, lengths = model.encode(torch.randn(1, FRAMES, mel_bins), torch.tensor([FRAMES]))
        for hypothesis in greedy(model, encoded, lengths):
            tokenizer.decode(hypothesis.ids)


@cache
def whole_export() -> Files:
    """The files of an export."""
    from nibble.export.sherpa.folder import export_folder

    with tempfile.TemporaryDirectory() as place:
        loaded = small_model(Path(place), "int4")
        export_folder(Path(place) / "sherpa", loaded, Encoding.w4a8, labels_per_frame=1)
        return {path.name: path.read_bytes() for path in sorted((Path(place) / "sherpa").iterdir())}


def export_cases(seed: int, count: int) -> Iterator[tuple[str, Write]]:
    for number in range(count):
        draw = Random(f"export {seed} {number}")
        files, wrong = dict(whole_export()), "intact"
        said = json.loads(files["nibble.json"])
        if number:
            name = draw.choice(sorted(files))
            if name == "nibble.json":
                wrong, said = hostile(said, draw)
            elif name.endswith(".onnx") and draw.random() < 0.5:
                wrong, files[name] = _weight(files[name], draw)
            else:
                wrong, files[name] = draw.choice([broken, broken, broken, lambda _content, _draw: ("empty", b"")])(
                    files[name], draw
                )
            wrong = f"{name}: {wrong}"
        if isinstance(said, dict) and isinstance(said.get("sha256"), dict):
            said["sha256"] |= {
                name: hashlib.sha256(files[name]).hexdigest() for name in said["sha256"] if name in files
            }
        files["nibble.json"] = as_json(said, draw)
        yield wrong, lambda folder, files=files: write(folder, files)


def _weight(graph: bytes, draw: Random) -> tuple[str, bytes]:
    """Another bit in a weight of a graph."""
    import onnx

    model = onnx.load_from_string(graph)
    weight = draw.choice([constant for constant in model.graph.initializer if constant.raw_data])
    place, bit = draw.randrange(len(weight.raw_data)), draw.randrange(8)
    weight.raw_data = (
        weight.raw_data[:place] + bytes([weight.raw_data[place] ^ 1 << bit]) + weight.raw_data[place + 1 :]
    )
    return f"bit {bit} of byte {place} of {weight.name}", model.SerializeToString()


def load_export(folder: Path) -> None:
    """Loaded, it computes what another reader of its graphs finds in them, and recognises or says why not."""
    from nibble.inference.onnx_transducer import onnx_transducer

    exported = read_exported(folder)
    said = json.loads((folder / "nibble.json").read_bytes())
    same(
        {"step": exported.step, "corpus": exported.corpus, "config": plain(exported.config)},
        {name: said[name] for name in ("step", "corpus", "config")},
    )
    labels = exported.tokenizer.size
    model = onnx_transducer(folder, 1, labels)
    found = computed(model)
    (folder / "again").mkdir()
    for name in GRAPHS:
        (folder / "again" / name).write_bytes(read_again((folder / name).read_bytes()))
    for one, other in zip(found, computed(onnx_transducer(folder / "again", 1, labels)), strict=True):
        assert np.array_equal(one, other, equal_nan=True), "what is computed is not what the files say"
    recognise(model, exported.tokenizer, MEL_BINS)


def read_again(graph: bytes) -> bytes:
    """A graph as the `onnx` package reads it, of which nothing is kept that it does not know."""
    import onnx

    model = onnx.load_from_string(graph)
    model.DiscardUnknownFields()
    return model.SerializeToString()


def computed(model: Any) -> tuple[np.ndarray, ...]:
    """What each graph gives for noise."""
    torch.manual_seed(0)
    encoded, lengths = model.encode(torch.randn(1, FRAMES, MEL_BINS), torch.tensor([FRAMES]))
    state = model.append_label(torch.tensor([1]), model.start_labels(1, encoded.device))
    logits = model.label_logits(encoded[:, 0], state)
    return encoded.numpy(), lengths.numpy(), state.predicted.numpy(), logits.numpy()


KINDS = [Kind("bundles", bundle_cases, load_bundle, count=100)]
if find_spec("onnx") and find_spec("onnxruntime"):
    KINDS.append(Kind("exports", export_cases, load_export, count=50))

"""Checkpoints of other toolkits, damaged in any byte, or with descriptions and tensors that contradict each other."""

import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from fuzzing import COMMAND, Kind, Write
from kinds_checkpoints import Command, as_bytes
from mutations import HOSTILE, broken

sys.path.append(str(Path(__file__).parents[1] / "imports"))  # the small models are made there

import test_espnet
import test_icefall
import test_nemo
from speech_model import sentencepiece_model

from nibble.imports.recognition import read_foreign
from nibble.model.transducer import Transducer
from nibble.shapes import shapes_only

Parts = dict[str, bytes]  # by the name of a member of an archive, or of a file of a folder


@cache
def nemo() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A small model: its description and its weights."""
    said = test_nemo.description(**test_nemo.VARIANTS["fastconformer"])
    return said, test_nemo.weights(said)


@cache
def icefall() -> dict[str, torch.Tensor]:
    return test_icefall.weights()


@cache
def espnet() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return test_espnet.description(), test_espnet.weights()


@cache
def pieces() -> tuple[bytes, bytes]:
    """Tokenizers of NeMo and of icefall."""
    return sentencepiece_model(test_nemo.PIECES), test_icefall.tokenizer()


def archive(said: object, tensors: object, mode: str = "w") -> bytes:
    """A .nemo file."""
    members = {"model_config.yaml": yaml.safe_dump(said).encode(), "model_weights.ckpt": as_bytes(tensors)}
    members["1234_tokenizer.model"] = pieces()[0]
    return archived(members, mode)


def archived(members: Parts, mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def other_tensors(tensors: dict[str, Any], draw: Random) -> dict[str, Any]:
    """One of them gone, of another shape or type, or too much."""
    found = dict(tensors)
    name = draw.choice(sorted(found))
    strange = [None, "text", Command(), torch.zeros(()).expand(99_999, 99_999), torch.full((2,), torch.nan)]
    how = draw.randrange(4)
    if how == 0:
        del found[name]
    elif how == 1:
        found[f"{name}.{draw.random()}"] = torch.zeros(2)
    elif how == 2:
        found[name] = draw.choice(strange)
    else:
        found[name] = found[name].flatten()[:-1]
    return found


def nemo_file(draw: Random) -> tuple[str, bytes]:
    said, tensors = nemo()
    how = draw.randrange(5)
    if how == 0:
        return broken(archive(said, tensors, draw.choice(["w", "w:gz"])), draw)
    if how == 1:
        return "tensors", archive(said, other_tensors(tensors, draw))
    if how == 2:
        outside = draw.choice(["/tmp/outside", "../outside", "model_config.yaml/x", "a" * 300])
        return f"a member {outside[:20]}", archived(
            {outside: b"x" * 100, "model_config.yaml": yaml.safe_dump(said).encode()}
        )
    if how == 3:
        text = f"!!python/object/apply:os.system ['{COMMAND}']".encode()
        return "a command", archived({"model_config.yaml": draw.choice([text, b"&a [*a, *a]", b"[" * 5_000, b"\xff"])})
    changed = deepcopy(said)
    section = changed[draw.choice(["preprocessor", "tokenizer", "encoder", "decoder", "joint"])]
    option = draw.choice(sorted(section))
    section[option] = value = deepcopy(draw.choice(HOSTILE))
    try:
        return f"{option}={value!r:.40}", archive(changed, tensors)
    except yaml.YAMLError:
        return "intact", archive(said, tensors)


def icefall_parts(draw: Random) -> tuple[str, Parts]:
    tensors, tokenizer = icefall(), pieces()[1]
    if draw.random() < 0.5:
        what, content = broken(as_bytes({"model": tensors}), draw)
        return what, {"exp/pretrained.pt": content, "data/lang_bpe_500/bpe.model": tokenizer}
    if draw.random() < 0.3:
        what, tokenizer = broken(tokenizer, draw)
        return what, {"exp/pretrained.pt": as_bytes({"model": tensors}), "data/lang_bpe_500/bpe.model": tokenizer}
    changed = {"model": other_tensors(tensors, draw)}
    return "tensors", {"exp/pretrained.pt": as_bytes(changed), "data/lang_bpe_500/bpe.model": tokenizer}


def espnet_package(draw: Random) -> tuple[str, bytes]:
    said, tensors = espnet()
    how = draw.randrange(4)
    if how == 0:
        packing = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        return broken(test_espnet.zipped(test_espnet.members(said, tensors), packing), draw)
    if how == 1:
        return "tensors", test_espnet.zipped(test_espnet.members(said, other_tensors(tensors, draw)))
    if how == 2:
        files = test_espnet.members(said, tensors)
        name = draw.choice(sorted(files))
        what, files[name] = broken(files[name], draw)
        return f"{name}: {what}", test_espnet.zipped(files)
    changed = deepcopy(said)
    section = draw.choice([changed, *(part for part in changed.values() if isinstance(part, dict))])
    option = draw.choice(sorted(section))
    section[option] = value = deepcopy(draw.choice(HOSTILE))
    try:
        return f"{option}={value!r:.40}", test_espnet.zipped(test_espnet.members(changed, tensors))
    except yaml.YAMLError:
        return "intact", test_espnet.zipped(test_espnet.members(said, tensors))


def hugging_face(draw: Random) -> tuple[str, Parts]:
    """A description of a folder of transformers, of which only the description is read."""
    said: dict[str, Any] = {"model_type": draw.choice(["parakeet_rnnt", "parakeet_ctc", "wav2vec2", "hubert"])}
    options = ["hidden_size", "conv_dim", "conv_kernel", "encoder_config", "vocab_size", "num_hidden_layers", "do_norm"]
    for option in draw.sample(options, 2):
        said[option] = deepcopy(draw.choice(HOSTILE))
    text = json.dumps(said).encode()
    return (
        (broken(text, draw)[0], {"config.json": broken(text, draw)[1]})
        if draw.random() < 0.3
        else (
            "options",
            {"config.json": text},
        )
    )


def put(folder: Path, parts: Parts) -> None:
    for name, content in parts.items():
        (folder / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "given" / name).write_bytes(content)


def put_archive(folder: Path, content: bytes) -> None:
    (folder / "given.nemo").write_bytes(content)


def put_package(folder: Path, content: bytes) -> None:
    (folder / "given.zip").write_bytes(content)


def cases(
    intact: Callable[[], Any], make: Callable[[Random], tuple[str, Any]], write: Callable[[Path, Any], None]
) -> Callable[[int, int], Iterator[tuple[str, Write]]]:
    """The cases of a kind."""

    def found(seed: int, count: int) -> Iterator[tuple[str, Write]]:
        yield "intact", lambda folder: write(folder, intact())
        for number in range(1, count):
            what, content = make(Random(f"{seed} {number}"))
            yield what, lambda folder, content=content: write(folder, content)

    return found


def load(folder: Path) -> None:
    """Read the description, then the weights, which must be those of the network that is described.

    Raises:
        UserError: it is refused.
        AssertionError: a weight has another shape than it should, or is no number.
    """
    path = next(path for name in ("given.nemo", "given.zip", "given") if (path := folder / name).exists())
    foreign = read_foreign(path)
    state = foreign.weights()
    if foreign.tokenizer is None:
        return
    with shapes_only():
        model = Transducer(foreign.model, foreign.features, foreign.tokenizer.size)
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert all(tensor.isfinite().all() for tensor in state.values())


def load_description(folder: Path) -> None:
    """Read the description of a folder without weights; an intact one says what it is."""
    if (folder / "given" / "config.json").read_bytes() == _INTACT:
        assert read_foreign(folder / "given").model.width == 768
        return
    read_foreign(folder / "given")


_INTACT = b'{"model_type": "hubert"}'
KINDS = [
    Kind("nemo archive", cases(lambda: archive(*nemo()), nemo_file, put_archive), load, count=100),
    Kind(
        "espnet package",
        cases(lambda: test_espnet.zipped(test_espnet.members(*espnet())), espnet_package, put_package),
        load,
        count=60,
    ),
    Kind(
        "icefall folder",
        cases(
            lambda: {"exp/pretrained.pt": as_bytes({"model": icefall()}), "data/lang_bpe_500/bpe.model": pieces()[1]},
            icefall_parts,
            put,
        ),
        load,
        count=50,
    ),
    Kind(
        "hugging face config", cases(lambda: {"config.json": _INTACT}, hugging_face, put), load_description, count=100
    ),
]

"""Checkpoints of train.py, damaged in any byte, or changed with right checksums."""

import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from fuzzing import COMMAND, Kind, Write
from small import small_config

from nibble.config import plain
from nibble.data.tokenizer import train_tokenizer
from nibble.model.transducer import Transducer
from nibble.runs.checkpoint import load_checkpoint

NAME = "last.ckpt"
INTACT = "intact.ckpt"  # beside it, what it was made from


class Command:
    """Unpickling this runs a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (COMMAND,)


@cache
def saved() -> dict[str, Any]:
    """What a checkpoint holds."""
    config = small_config()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(["YES", "NO", "UP"], config.data.tokens, 0, Path(folder))
    torch.manual_seed(1)
    model = Transducer(config.model, config.features, tokenizer.size)
    ours = {"config": plain(config), "tokenizer": tokenizer.model, "precision": "float", "blend": 1.0}
    return {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "nibble": {**ours, "corpus": "tiny", "step": 3, "method": "float"},
        "global_step": 3,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}],
    }


def as_bytes(values: object) -> bytes:
    """A file of torch.save."""
    file = io.BytesIO()
    torch.save(values, file)
    return file.getvalue()


@cache
def intact() -> bytes:
    return as_bytes(saved())


def write(folder: Path, content: bytes) -> None:
    (folder / NAME).write_bytes(content)
    (folder / INTACT).write_bytes(intact())


def flipped(draw: Random) -> bytes:
    """A few bits, anywhere."""
    content = bytearray(intact())
    for _ in range(draw.choice([1, 1, 1, 3, 20])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def cut(draw: Random) -> bytes:
    """Shorter, longer, or with a part of it gone or doubled."""
    content, start = intact(), draw.randrange(len(intact()))
    end = min(len(content), start + draw.choice([1, 64, 4096]))
    more = bytes(draw.randrange(256) for _ in range(20))
    without, doubled = content[:start] + content[end:], content[:end] + content[start:]
    return draw.choice([content[:start], content + more, without, doubled])


def resealed(draw: Random, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Bytes of the pickle changed, with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(intact())) as old, zipfile.ZipFile(file, "w", compression) as new:
        for member in old.infolist():
            content = bytearray(old.read(member))
            if member.filename.endswith("data.pkl"):
                for _ in range(draw.choice([1, 1, 2, 8])):
                    content[draw.randrange(len(content))] = draw.choice([draw.randrange(256), 0, 0x52, 0x63, 0xFF])
            new.writestr(member.filename, bytes(content))
    return file.getvalue()


def repickled(draw: Random) -> bytes:
    """An entry of another type, size or meaning."""
    state, ours = dict(saved()["state_dict"]), dict(saved()["nibble"])
    name = draw.choice(sorted(state))
    ours["config"] = config = deepcopy(ours["config"])
    size = draw.choice([0, -1, 7, 12288, 2**31, 2**62, 1.5, None, "wide", [], {"a": 1}, True])
    strange = draw.choice([None, 3, "text", [1.0], {}, Command()])
    option = draw.choice(sorted(config["model"]))
    entry = draw.choice(sorted(ours))

    def put_size() -> None:
        config["model"][option] = size

    changes: list[Callable[[], Any]] = [
        put_size,
        lambda: state.update({name: strange}),
        lambda: state.update({name: torch.zeros(()).expand(draw.choice([(3,), (99999, 99999), (2**40,)]))}),
        lambda: state.pop(name),
        lambda: state.update({f"model.{draw.random()}": torch.zeros(2)}),
        lambda: ours.update({entry: strange}),
        lambda: ours.pop(entry),
        lambda: config.update({draw.choice(sorted(config)): strange}),
    ]
    draw.choice(changes)()
    return as_bytes({**saved(), "state_dict": state, "nibble": ours})


def cases(seed: int, count: int) -> Iterator[tuple[str, Write]]:
    """What is wrong with each case, and what writes it; the first one is intact."""
    yield "intact", partial(write, content=intact())
    for number in range(1, count):
        draw = Random(f"{seed} {number}")
        change = draw.choice([flipped, cut, resealed, repickled, partial(resealed, compression=zipfile.ZIP_DEFLATED)])
        name = getattr(change, "__name__", "compressed")
        yield name, lambda folder, draw=draw, change=change: write(folder, change(draw))


def load(folder: Path) -> None:
    """Load the checkpoint; one whose checksums were changed too may have other values.

    Raises:
        UserError: it is refused.
        AssertionError: weights of a file that was damaged are not those of the intact one.
    """
    content = (folder / NAME).read_bytes()
    loaded = load_checkpoint(folder / NAME)
    expected = load_checkpoint(folder / INTACT)
    if _sealed(content) == _sealed((folder / INTACT).read_bytes()):  # whoever changes checksums means the values
        for name, tensor in expected.model.state_dict().items():
            assert torch.equal(tensor, loaded.model.state_dict()[name]), f"{name} is silently another"
        assert loaded.config == expected.config


def _sealed(content: bytes) -> dict[str, int] | None:
    """The checksums in a zip file's directory."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {member.filename: member.CRC for member in archive.infolist()}
    except (zipfile.BadZipFile, OSError):
        return None


KINDS = [Kind("checkpoint", cases, load)]

"""Ways to break bytes and plain data, each drawn by a `random.Random`: (what was done, the result)."""

import copy
import json
from random import Random
from typing import Any

from fuzzing import COMMAND

_LENGTHS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
HOSTILE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.5, 1e-300, 1e308, 5e-324),
    *("", " ", "0", "null", "x" * 5_000, "../../../../etc/passwd", "/dev/zero", "/proc/self/mem", "nowhere/at/all"),
    *(
        "[red]bold[/red]",
        "[/nothing]",
        "a|b",
        "<script>alert(1)</script>",
        "a\nb",
        "a\0b",
        "\ud800",
        "\u202e",
        "é" * 40,
    ),
    *("${oc.env:HOME}", "{{7*7}}", "%s%n", f"pipe:{COMMAND}", f"`{COMMAND}`", f"$({COMMAND})", f"| {COMMAND}"),
    *([], {}, [[]], [{}], {"": None}, [None], {"_target_": "os.system", "_args_": [COMMAND]}, [1, 2, 3]),
]
RAW = [  # JSON texts that no value gives
    *(
        b"",
        b"\0",
        b"[",
        b"{",
        b"nul",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5_000,
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\0}\0",
    ),
    *(b"[" * 100_000, b'{"a":' * 50_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b"[" * 900 + b"]" * 900),
    *(b'"\xff"', b'{"a": 1, "a": 2}', b"{} {}", b"'a'", b"{a: 1}", b'"\\ud800"', b" " * 3_000_000, b"// comment\n{}"),
]


def broken(content: bytes, draw: Random) -> tuple[str, bytes]:
    """Bytes with one to three things wrong."""
    said = []
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        what, content = draw.choice([_flip, _flip, _cut, _drop, _repeat, _overwrite, _insert, _length])(content, draw)
        said.append(what)
    return ", ".join(said), content


def _place(content: bytes, draw: Random) -> int:
    """Anywhere, but more often near the beginning and the end, where formats keep what is fragile."""
    last = max(0, len(content) - 1)
    near = min(last, draw.randrange(64))
    return draw.choice([draw.randint(0, last), near, last - near])


def _flip(content: bytes, draw: Random) -> tuple[str, bytes]:
    if not content:
        return "nothing to flip", content
    place, bit = _place(content, draw), draw.randrange(8)
    return f"bit {bit} of byte {place} flipped", content[:place] + bytes([content[place] ^ 1 << bit]) + content[
        place + 1 :
    ]


def _cut(content: bytes, draw: Random) -> tuple[str, bytes]:
    place = _place(content, draw)
    return f"cut off at {place}", content[:place]


def _drop(content: bytes, draw: Random) -> tuple[str, bytes]:
    place, length = _place(content, draw), draw.choice([1, 2, 8, 100])
    return f"{length} bytes at {place} left out", content[:place] + content[place + length :]


def _repeat(content: bytes, draw: Random) -> tuple[str, bytes]:
    place, length = _place(content, draw), draw.choice([1, 4, 64, 1_000])
    return f"{length} bytes at {place} twice", content[: place + length] + content[place:]


def _overwrite(content: bytes, draw: Random) -> tuple[str, bytes]:
    place, length = _place(content, draw), draw.choice([1, 4, 16])
    random = bytes(draw.choice([0, 255, draw.randrange(256)]) for _ in range(length))
    return f"{random.hex()} at {place}", content[:place] + random + content[place + length :]


def _insert(content: bytes, draw: Random) -> tuple[str, bytes]:
    place, text = _place(content, draw), draw.choice([b"\0", b"\xff" * 4, b"\n", b"\r\n", b'"', b"{", b"-", b"9" * 20])
    return f"{text!r} put in at {place}", content[:place] + text + content[place:]


def _length(content: bytes, draw: Random) -> tuple[str, bytes]:
    """A number as headers have it, in place of what may be one."""
    place, number, size = _place(content, draw), draw.choice(_LENGTHS), draw.choice([2, 4, 8])
    order = draw.choice(["little", "big"])
    return f"{number} at {place}", content[:place] + (number % 256**size).to_bytes(size, order) + content[
        place + size :
    ]


def hostile(values: Any, draw: Random) -> tuple[str, Any]:
    """Plain data with one to three values or names changed; `values` stays as it is."""
    values = copy.deepcopy(values)
    said = []
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        parent, key, where = _choose(values, draw)
        if parent is None:
            return f"all of it is {_short(found := _strange(draw))}", found
        said.append(_change(parent, key, where, draw))
    return ", ".join(said), values


def _strange(draw: Random) -> Any:
    """One of `HOSTILE`, as a copy: what is changed in it next must not change it for the cases that follow."""
    return copy.deepcopy(draw.choice(HOSTILE))


def _choose(values: Any, draw: Random) -> tuple[Any, Any, str]:
    """A place in plain data: what it is in, its name or number there, and the way to it."""
    parent, key, where = None, None, ""
    inner = values
    while isinstance(inner, dict | list) and inner and (parent is None or draw.random() < 0.8):
        parent = inner
        key = draw.choice(list(inner)) if isinstance(inner, dict) else draw.randrange(len(inner))
        where += f".{_short(key)}"
        inner = parent[key]
    return parent, key, where[1:]


def _change(parent: Any, key: Any, where: str, draw: Random) -> str:
    value, how = parent[key], draw.randrange(6)
    if how == 0:
        del parent[key]
        return f"{where} is left out"
    if how == 1 and isinstance(parent, dict):
        name = draw.choice([f"{key}x", "", "_target_", "__class__", "self", "\ud800", "[red]"])
        parent[name] = draw.choice([parent.pop(key), _strange(draw)])
        return f"{where} is called {_short(name)}"
    if how == 2 and type(value) in (int, float):
        parent[key] = draw.choice(
            [-value, value + 1, value * 1_000, value * 10**9, float(value), int(value), str(value)]
        )
    elif how == 3 and isinstance(value, list):
        parent[key] = draw.choice([value * 2, value[:-1], [value], value[0] if value else None, dict(enumerate(value))])
    elif how == 4:
        parent[key] = draw.choice([[value], {"": value}, str(value)])
    else:
        parent[key] = _strange(draw)
    return f"{where} is {_short(parent[key])}"


def as_json(values: Any, draw: Random) -> bytes:
    """JSON as someone else may write it."""
    return json.dumps(values, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 1])).encode(
        "utf-8", "surrogatepass"
    )


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) < 60 else f"{text[:60]}…"

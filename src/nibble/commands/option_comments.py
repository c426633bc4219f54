"""Reads the text of each option for `--help` from the comment where the option is defined."""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from textwrap import dedent
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints


class Option(NamedTuple):
    """One option, or the heading of the options that follow: its name then ends with a dot."""

    name: str  # as on the command line, such as data.tokens; quant.rules[].match is of each element of quant.rules
    default: Any
    meaning: str  # empty if the name says it
    choices: tuple[str, ...] = ()


def options(schema: type, prefix: str = "") -> Iterator[Option]:
    """All options of a dataclass in the order of their definition; then those of its parts."""
    types, written = get_type_hints(schema), comments(schema)
    parts: list[tuple[str, type]] = []
    for field in fields(schema):
        name = f"{prefix}{field.name}"
        kind, plain = _inner(types[field.name])
        meaning, choices = written.get(field.name, ""), tuple[str, ...]()
        if is_dataclass(kind):
            parts.append((f"{name}[]." if get_origin(types[field.name]) is list else f"{name}.", kind))
            if plain:
                continue
        elif issubclass(kind, StrEnum):
            meaning, choices = meaning or _summary(kind).rstrip("."), tuple(kind)
        yield Option(name, _default(field), meaning, choices)
    for part, kind in parts:
        yield Option(part, None, _summary(kind))
        yield from options(kind, part)


def comments(schema: type) -> dict[str, str]:
    """The fields of a dataclass that have a comment -> the one behind them, else the one above them."""
    source = dedent(inspect.getsource(schema))
    lines: dict[int, str] = {}
    alone: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0]] = token.string.lstrip("# ")
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    (definition,) = ast.parse(source).body
    found = {}
    for node in definition.body if isinstance(definition, ast.ClassDef) else ():
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if (last := node.end_lineno) in lines:
            found[node.target.id] = lines[last]
            continue
        first = node.lineno
        while first - 1 in alone:
            first -= 1
        if first < node.lineno:
            found[node.target.id] = " ".join(lines[number] for number in range(first, node.lineno))
    return found


def _inner(kind: Any) -> tuple[type, bool]:
    """A type without "or null" and "list of", and whether it had neither."""
    if get_origin(kind) in (UnionType, list):
        (kind,) = (choice for choice in get_args(kind) if choice is not NoneType)
        return _inner(kind)[0], False
    return kind if isinstance(kind, type) else object, True


def _default(field: "Field[Any]") -> Any:
    """Plain, as OmegaConf writes it: ??? if there is none."""
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is MISSING:
        return "???"
    return value.value if isinstance(value, StrEnum) else value


def _summary(schema: type) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(str(schema.__doc__).partition("\n\n")[0].split())

"""JSON to plain data (dictionaries, lists, numbers, strings), and plain data to dataclasses, as strictly as possible.

What a file says is compared with the types of the fields and nothing else: no text becomes a number, no name is
resolved or imported, no expression is evaluated. So a file from anywhere can at worst be refused.
"""

import json
import math
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nibble.errors import UserError, nearest

Schema = TypeVar("Schema")
_NO_VALUE = "???"  # the default of an option that has none, as OmegaConf writes it
_TOO_LARGE = 2**63  # of whole numbers: what follows computes in 64 bits
_MAX_DEPTH = 100  # of lists and dictionaries in one another; records and options have less than ten
_SHOWN = 60  # characters of a name or value in a message
_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def parse(content: str | bytes) -> Any:
    """What a JSON text says, as plain data.

    Stricter than `json.loads`: a name may not stand twice in one dictionary, numbers are finite and as long as Python
    can print them, texts can be written as UTF-8, and nothing is nested deeper than any file of this project.

    Raises:
        UserError: it says something else; the text says what.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        said = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
        text.encode("utf-8")
    except RecursionError as error:
        raise UserError("it is nested too deep") from error
    except ValueError as error:  # of json, and of Unicode
        raise UserError(str(error) or "it is no JSON") from error
    _check_plain(said)
    return said


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        raise ValueError(f"{_short(twice)} stands in it twice")
    return found


def _check_plain(said: Any) -> None:
    """Level by level, so that no depth is too deep to be found."""
    level = [said]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += [*value, *value.values()]
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
                raise UserError(f"{_short(value)} is half of a character")
            elif isinstance(value, float) and not math.isfinite(value):
                raise UserError("a number in it is too large")
        if not inner:
            return
        level = inner
    raise UserError("it is nested too deep")


def build(schema: type[Schema], values: object, where: str = "") -> Schema:
    """An instance of the dataclass `schema` with these values; what they leave out has its default.

    Args:
        schema: fields are dataclasses, enumerations of strings, bool, int, float, str, lists and tuples of these,
            dictionaries from str to these, null, or `Any`, which is left as it is.
        values: such as `json.load` gives.
        where: the name of the whole, for messages.

    Raises:
        UserError: an unknown or missing name, a value of another type, a number that is not finite, or what the
            dataclass itself refuses; the text names the option.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where or 'it'} is {_short(values)}; give names with values")
    known = {field.name: field for field in fields(schema)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in known:
            raise UserError(f"no option {_short(f'{prefix}{name}')}; nearest: {nearest(str(name)[:_SHOWN], known)}")
    missing = [f"{prefix}{name}" for name, field in known.items() if name not in values and not _has_default(field)]
    if missing:
        raise UserError(f"no value for {', '.join(missing)}")
    types = get_type_hints(schema)
    return schema(**{name: _value(types[name], value, f"{prefix}{name}") for name, value in values.items()})


def build_lines(schema: type[Schema], path: Path, called: str, cure: str) -> list[Schema]:
    """An instance of `schema` for each line of JSON in a file, in its order; none if there is no file.

    Args:
        schema: as for `build`.
        path: of the file.
        called: what a line is to be, for messages.
        cure: what to do with a line that is something else, for messages.

    Raises:
        UserError: a line cannot be read as one; the text gives its number.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], start=1):
        try:
            found.append(build(schema, parse(line)))
        except UserError as error:
            raise UserError(f"{path}, line {number} is not {called}: {error}; {cure}") from error
    return found


def _value(kind: Any, value: object, where: str) -> Any:
    """`value`, if it is of the type `kind`."""
    if kind in _NAMES:
        return _plain(kind, value, where)
    if kind is Any:
        return value
    if get_origin(kind) in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (choice for choice in get_args(kind) if choice is not NoneType)
        return _value(kind, value, where)
    if is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is list and isinstance(value, list):
        (inner,) = get_args(kind)
        return [_value(inner, one, f"{where}[{number}]") for number, one in enumerate(value)]
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        inner = get_args(kind)
        if len(value) != len(inner):
            raise UserError(f"{where} is {_short(value)}; give {len(inner)} values")
        return tuple(_value(one, of, f"{where}[{at}]") for at, (one, of) in enumerate(zip(inner, value, strict=True)))
    if get_origin(kind) is dict and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {str(name): _value(inner, one, f"{where}[{_short(name)}]") for name, one in value.items()}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if isinstance(value, str) and value in set(kind):
            return kind(value)
        raise UserError(f"{where} is {_short(value)}; give one of {', '.join(kind)}")
    return _plain(kind, value, where)


def _plain(kind: Any, value: object, where: str) -> Any:
    if type(value) is int and kind in (int, float) and abs(value) < _TOO_LARGE:  # to Python, true is an int as well
        return kind(value)
    if type(value) is float and kind is float and math.isfinite(value):
        return value
    if type(value) is kind and kind in (bool, str):
        return value
    raise UserError(f"{where} is {_short(value)}; give {_NAMES.get(kind, 'a list or names with values')}")


def _has_default(field: "Field[Any]") -> bool:
    return field.default_factory is not MISSING or field.default not in (MISSING, _NO_VALUE)


def _short(value: object) -> str:
    text = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}…"

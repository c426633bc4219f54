"""Plain data (dictionaries, lists, numbers, strings) to dataclasses, as strictly as possible.

What a file says is compared with the types of the fields and nothing else: no text becomes a number, no name is
resolved or imported, no expression is evaluated. So a file from anywhere can at worst be refused.
"""

import json
import math
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nibble.errors import UserError, nearest

Schema = TypeVar("Schema")
_NO_VALUE = "???"  # the default of an option that has none, as OmegaConf writes it
_TOO_LARGE = 2**63  # of whole numbers: what follows computes in 64 bits
_SHOWN = 60  # characters of a name or value in a message
_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def build(schema: type[Schema], values: object, where: str = "") -> Schema:
    """An instance of the dataclass `schema` with these values; what they leave out has its default.

    Args:
        schema: fields are dataclasses, enumerations of strings, bool, int, float, str, lists of these, dictionaries
            from str to these, or null.
        values: such as `json.load` gives.
        where: the name of the whole, for messages.

    Raises:
        UserError: an unknown or missing name, a value of another type, a number that is none, or what the dataclass
            itself refuses; the text names the option.
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
        UserError: a line is none; the text gives its number.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        try:
            found.append(build(schema, json.loads(line)))
        except (ValueError, UserError) as error:
            raise UserError(f"{path}, line {number} is not {called}: {error}; {cure}") from error
    return found


def _value(kind: Any, value: object, where: str) -> Any:
    """`value`, if it is of the type `kind`."""
    if get_origin(kind) in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (choice for choice in get_args(kind) if choice is not NoneType)
    if is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is list and isinstance(value, list):
        (inner,) = get_args(kind)
        return [_value(inner, one, f"{where}[{number}]") for number, one in enumerate(value)]
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

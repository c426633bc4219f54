"""Options of the commands that need no composition: NAME=VALUE as for `train.py`, beside words such as files.

Such a command has its options in a dataclass. Types and comments there say what may be typed and what `--help` shows.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nibble.errors import UserError
from nibble.plain import build, parse

Schema = TypeVar("Schema")
BARE = {"bare": True}  # metadata of the option, a list of texts, that takes the words without NAME=
_FLAG = re.compile("--?([A-Za-z][A-Za-z0-9_-]*)")


def run_words(
    task: Callable[[Schema], int | None], schema: type[Schema], about: str | None, words: Sequence[str] | None = None
) -> int:
    """Call `task` with the options that `words` set; a `UserError` is printed in one paragraph.

    Args:
        task: the command.
        schema: the dataclass of its options.
        about: what the command is for, with examples; `--help` begins with it.
        words: of the command line; None for those that were typed.

    Returns:
        The exit code: what `task` returns, 0 for None; 1 after an error.
    """
    given = sys.argv[1:] if words is None else list(words)
    if "-h" in given or "--help" in given:
        from nibble.commands.help import words_help

        print(words_help(str(about), schema, _bare_name(schema)))
        return 0
    try:
        return task(read_words(schema, given)) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def read_words(schema: type[Schema], words: Sequence[str]) -> Schema:
    """The options that `words` set: NAME=VALUE, where null is none and [A,B] or A,B is a list.

    A path goes into a text as it was typed. A word whose NAME is not made of letters, digits and _ is no option but a
    file, such as ./a=b.wav.

    Raises:
        UserError: an unknown option, one that is missing or given twice, a value of another type, or what the
            dataclass itself refuses; the text names the option.
    """
    types, bare = get_type_hints(schema), _bare_name(schema)
    values: dict[str, Any] = {bare: []} if bare else {}
    for word in words:
        name, equals, text = word.partition("=")
        if flag := _FLAG.match(word):
            meant = flag[1].replace("-", "_")
            raise UserError(f"{word}: options are written without dashes, {meant}=VALUE; --help lists them")
        if equals and name.isidentifier():
            if name in values:
                raise UserError(f"{name}= is given twice; leave one of both out")
            values[name] = _plain(types.get(name), text)
        elif bare is None:
            raise UserError(f"{word!r} is no option with its value; give NAME=VALUE, --help lists them")
        else:
            values[bare].append(word)
    for each in _fields(schema):
        if each.name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise UserError(f"no {each.name}; give {each.name}=VALUE, --help says which")
    return build(schema, values)


def _plain(kind: Any, text: str) -> Any:
    """The text of a value as plain data, for `build` to compare with the type of its option."""
    inner = {kind, *get_args(kind)}
    if text == "null" and NoneType in inner:
        return None
    if get_origin(kind) is list:
        return [one for one in text.removeprefix("[").removesuffix("]").split(",") if one]
    if inner & {bool, int, float}:
        try:
            return parse(text.lower())
        except UserError:
            return text  # which `build` refuses
    return text


def _bare_name(schema: type) -> str | None:
    """The option that words without NAME= go to, if there is one."""
    return next((each.name for each in _fields(schema) if each.metadata == BARE), None)


def _fields(schema: type) -> "tuple[Field[Any], ...]":
    return fields(schema)

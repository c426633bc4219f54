"""`--help` of the commands that Hydra composes: what to type, the groups of files, and each option with its meaning."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from nibble.commands.option_comments import Option, options

_COLUMN = 42  # where meanings begin
_VALUE_WIDTH = 60  # longer values are cut
_FOOTER = """\
-m or --multirun sweeps: quant=int8,int4 seed=1,2,3. --cfg job prints the configuration and ends; --hydra-help: more.
Tab completes group and option names after: eval "$(python train.py --shell-completion install=bash)" (or zsh, fish)."""


def help_text(about: str, config_dir: Path, config_name: str, composed: DictConfig, schema: type) -> str:
    """All of it.

    Args:
        about: what the command is for, and examples.
        config_dir: with a folder for each group.
        config_name: the file there that lists the groups, each with a comment.
        composed: the configuration, with Hydra's own part.
        schema: the dataclass that it has the options of.
    """
    chosen = dict(composed.hydra.runtime.choices)
    values = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    return "\n".join(
        [
            about.strip(),
            "",
            "Groups: GROUP=CHOICE takes the options of conf/GROUP/CHOICE.yaml; in brackets what is chosen.",
            "",
            *(_group(config_dir, name, chosen.get(name), why) for name, why in groups(config_dir, config_name)),
            "",
            "Options: NAME=VALUE sets one, and wins over the groups. Shown is what is set now.",
            *_options(cast(dict[str, Any], values), schema),
            "",
            _FOOTER,
        ]
    )


def words_help(about: str, schema: type, bare: str | None) -> str:
    """That of a command without groups.

    Args:
        about: what the command is for, and examples.
        schema: the dataclass that it has the options of.
        bare: the option that takes words without NAME=, if there is one.
    """
    lines = []
    for option in options(schema):
        choices = f"; one of {', '.join(option.choices)}" if option.choices else ""
        left = f"{option.name.upper()} ..." if option.name == bare else f"{option.name}={_shown(option.default)}"
        lines.append(_entry(left, f"{option.meaning}{choices}"))
    return "\n".join([about.strip(), "", "Options: NAME=VALUE sets one. Shown is the default; ??? has none.", *lines])


def groups(config_dir: Path, config_name: str) -> list[tuple[str, str]]:
    """The groups of a configuration in the order of its list, and the comment behind each."""
    listed = (config_dir / f"{config_name}.yaml").read_text(encoding="utf-8")
    return re.findall(r"^  - (\w+): *\S+ *# *(.*)$", listed, flags=re.MULTILINE)


def _group(config_dir: Path, name: str, chosen: str | None, why: str) -> str:
    known = sorted(path.stem for path in (config_dir / name).glob("*.yaml"))
    choices = ", ".join(f"[{choice}]" if choice == chosen else choice for choice in known)
    return _entry(f"{name}=", f"{why}: {choices}")


def _options(values: dict[str, Any], schema: type) -> Iterator[str]:
    absent = "-"  # the part that isn't there, and what begins with it
    for option in options(schema):
        if option.name.startswith(absent):
            continue
        name = option.name.rstrip(".")
        value = _value(values, option)
        if not option.name.endswith("."):
            choices = f"; one of {', '.join(option.choices)}" if option.choices else ""
            yield _entry(f"{name}={_shown(value)}", f"{option.meaning}{choices}")
        elif value is None and "[]" not in name:
            absent = option.name
        else:
            yield f"\n{fill(option.meaning.replace('`', ''), _width())}"


def _value(values: dict[str, Any], option: Option) -> Any:
    """What is set; of the elements of a list, the default."""
    if "[]" in option.name:
        return option.default
    value: Any = values
    for part in option.name.rstrip(".").split("."):
        value = value[part]
    return value


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 1]}…"


def _entry(left: str, right: str) -> str:
    """Two columns; a long left one has a line of its own."""
    indent = " " * _COLUMN
    text = fill(right, _width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    if len(left) + len("   ") > _COLUMN:
        return f"  {left}\n{text}".rstrip()
    return f"  {left:<{_COLUMN - 2}}{text.strip()}".rstrip()


def _width() -> int:
    return max(80, min(120, shutil.get_terminal_size((120, 24)).columns))

"""The commands of docs/your-model.md compose."""

import re
import shlex
from pathlib import Path

import pytest

from nibble import composition

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-model.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
INLINE = re.findall(r"`(python [^`]+)`", PAGE.replace("\n", " "))
HYDRA = {"train.py": "train", "evaluate.py": "evaluate"} | {
    f"nibble.{name}": name for name in ("quantize", "export", "sensitivity")
}


@pytest.mark.parametrize("line", [*LINES, *INLINE])
def test_a_command_composes(line: str) -> None:
    words = shlex.split(line)[1:]
    words = words[1:] if words[0] == "-m" else words
    command, *options = words
    if command in HYDRA:
        composition.register_schemas()
        composition.check_command_line(ROOT / "conf", HYDRA[command], options)
    else:
        assert command in ("nibble.import", "nibble.transcribe")
        assert (ROOT / "src" / f"{command.replace('.', '/')}.py").is_file()


def test_there_are_commands() -> None:
    assert len(LINES) >= 9
    assert len(INLINE) >= 2


def test_every_refused_kind_has_an_instead() -> None:
    table = PAGE.split("## What is refused")[1].split("##")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("|")][2:]
    assert len(rows) >= 6
    assert all(len(cell.strip()) > 5 for row in rows for cell in row)

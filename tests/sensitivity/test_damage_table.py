from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.sensitivity.table import DamageTable, read_tables, write_table

TABLE = DamageTable.of("mine", "loss", "8 utterances", {"a": {2: 0.5, 8: -0.0}}, {"a": 8})


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_tables(tmp_path) == []
    assert write_table(TABLE, tmp_path) == tmp_path / "sensitivity_mine.json"
    assert read_tables(tmp_path) == [TABLE]
    assert TABLE.damage == {"a": {"2": 0.5, "8": 0.0}}


def test_damage_and_what_is_in_the_way_are_named(tmp_path: Path) -> None:
    (tmp_path / "sensitivity_mine.json").write_text('{"name": "mine"}')
    with pytest.raises(UserError, match=r"sensitivity_mine.json is damaged: no value for method"):
        read_tables(tmp_path)
    with pytest.raises(UserError, match=r"mine\.json cannot be written"):
        write_table(TABLE, tmp_path / "sensitivity_mine.json")

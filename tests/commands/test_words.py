"""Commands without composition take NAME=VALUE as well."""

from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from nibble.bench.__main__ import BenchOptions
from nibble.bench.gpu import GpuOptions
from nibble.commands.check import CheckOptions
from nibble.commands.dashboard import DashboardOptions
from nibble.commands.demo import DemoOptions
from nibble.commands.option_comments import options
from nibble.commands.report import ReportOptions
from nibble.commands.shar import SharOptions
from nibble.commands.transcribe import TranscribeOptions
from nibble.commands.words import BARE, read_words, run_words
from nibble.errors import UserError
from nibble.kernels.build import BuildOptions

SCHEMAS = [
    *(BenchOptions, BuildOptions, CheckOptions, DashboardOptions, DemoOptions),
    *(GpuOptions, ReportOptions, SharOptions, TranscribeOptions),
]


class Kind(StrEnum):
    """A kind of bread."""

    rye = "rye"
    wheat = "wheat"


@dataclass
class Options:
    """Of a bakery."""

    flour: str  # from which mill
    files: list[str] = field(default_factory=list, metadata=BARE)  # of recipes
    kind: Kind = Kind.rye
    loaves: int = 1  # how many
    oven_c: float | None = None  # null: the recipe's
    seeds: list[str] = field(default_factory=list)  # on top
    sliced: bool = False  # in slices of a centimetre

    def __post_init__(self) -> None:
        if self.loaves < 1:
            raise UserError(f"loaves={self.loaves}; give at least 1")


def test_values_get_the_type_of_their_option() -> None:
    words = ["a b.txt", "flour=007 (old)", "kind=wheat", "loaves=3", "oven_c=230", "seeds=[poppy,flax]", "sliced=True"]
    assert read_words(Options, [*words, "./c=d.txt", "-"]) == Options(
        "007 (old)", ["a b.txt", "./c=d.txt", "-"], Kind.wheat, 3, 230.0, ["poppy", "flax"], True
    )
    assert read_words(Options, ["flour=x", "oven_c=null", "seeds=flax"]) == Options("x", seeds=["flax"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loaves=1"], "no flour; give flour=VALUE"),
        (["flour=x", "loafs=2"], "no option 'loafs'; nearest: loaves"),
        (["flour=x", "loaves=two"], "loaves is 'two'; give a whole number"),
        (["flour=x", "kind=oat"], "kind is 'oat'; give one of rye, wheat"),
        (["flour=x", "sliced=maybe"], "sliced is 'maybe'; give true or false"),
        (["flour=x", "--oven-c", "3"], "--oven-c: options are written without dashes, oven_c=VALUE"),
        (["flour=x", "flour=y"], "flour= is given twice"),
        (["flour=x", "loaves=0"], "loaves=0; give at least 1"),
    ],
)
def test_a_slip_says_what_to_type(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_words(lambda _: None, Options, "Bake.", words) == 1
    assert f"error: {message}" in capsys.readouterr().err


def test_a_command_without_files_takes_none() -> None:
    with pytest.raises(UserError, match="'bread' is no option with its value; give NAME=VALUE"):
        read_words(DemoOptions, ["bread"])


def test_help_shows_defaults_meanings_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_words(lambda _: 1, Options, "Bake.\n\nbake rye.txt", ["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("Bake. bake rye.txt Options:")
    for shown in ("FILES ... of recipes", "flour=??? from which mill", "kind=rye A kind of bread; one of rye, wheat"):
        assert shown in said


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_option_says_what_it_means(schema: type) -> None:
    assert [one.name for one in options(schema) if not one.meaning] == []

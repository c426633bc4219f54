"""What a file may say, and what it is told otherwise."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from nibble.errors import UserError
from nibble.plain import build, parse


class Colour(StrEnum):
    red = "red"
    blue = "blue"


@dataclass
class Wheel:
    size: float
    spokes: int = 8


@dataclass
class Cart:
    name: str
    wheels: list[Wheel] = field(default_factory=list)
    colour: Colour = Colour.red
    owner: str | None = None
    covered: bool = False
    marks: dict[str, int] = field(default_factory=dict)
    way: tuple[str, int] = ("", 0)
    notes: Any = None
    load: str = "???"  # must be given, as OmegaConf writes it


PLAIN = {"name": "a", "load": "hay"}


def test_what_is_said_and_defaults_for_the_rest():
    cart = build(Cart, {**PLAIN, "wheels": [{"size": 2}, {"size": 0.5, "spokes": 3}], "colour": "blue", "owner": None})
    assert cart == Cart("a", [Wheel(2.0), Wheel(0.5, 3)], Colour.blue, load="hay")
    assert type(cart.wheels[0].size) is float
    assert build(Cart, {**PLAIN, "way": ["b", 3], "notes": [{}]}) == Cart("a", load="hay", way=("b", 3), notes=[{}])
    assert build(Cart, {**PLAIN, "marks": {"b": 3}, "owner": "c", "covered": True}).marks == {"b": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"the cart is \[\]; give names with values"),
        ({"name": "a"}, "no value for the cart.load"),
        ({**PLAIN, "color": "red"}, r"no option 'the cart.color'; nearest: colour"),
        ({**PLAIN, "wheels": [{"size": 1, "spoks": 4}]}, r"no option 'the cart.wheels\[0\].spoks'; nearest: spokes"),
        ({**PLAIN, "wheels": {"size": 1}}, r"the cart.wheels is {'size': 1}; give a list"),
        ({**PLAIN, "wheels": [{"size": "1"}]}, r"wheels\[0\].size is '1'; give a number"),
        ({**PLAIN, "wheels": [{"size": float("nan")}]}, "size is nan; give a number"),
        ({**PLAIN, "wheels": [{"size": 10**400}]}, "size is 1000.*…; give a number"),
        ({**PLAIN, "wheels": [{"size": 1, "spokes": 3.0}]}, "spokes is 3.0; give a whole number"),
        ({**PLAIN, "wheels": [{"size": 1, "spokes": True}]}, "spokes is True; give a whole number"),
        ({**PLAIN, "wheels": [{"size": 1, "spokes": 2**63}]}, "spokes is 9223372036854775808; give a whole number"),
        ({**PLAIN, "covered": 1}, "covered is 1; give true or false"),
        ({**PLAIN, "colour": "green"}, "colour is 'green'; give one of red, blue"),
        ({**PLAIN, "owner": ["x"]}, r"owner is \['x'\]; give a text"),
        ({**PLAIN, "marks": {"b": "x"}}, r"marks\['b'\] is 'x'; give a whole number"),
        ({**PLAIN, "way": ["b"]}, r"way is \['b'\]; give 2 values"),
        ({**PLAIN, "way": ["b", 1.5]}, r"way\[1\] is 1.5; give a whole number"),
        ({**PLAIN, "way": "b1"}, r"way is 'b1'; give a list"),
        ({**PLAIN, "x" * 10_000: 1}, r"no option '[^']{60}'; nearest"),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        build(Cart, values, "the cart")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 150 + b"]" * 150, "nested too deep"),  # json.loads takes it, and what prints it may not
        (b'{"a": 1, "a": 2}', "'a' stands in it twice"),
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b"1e999", "a number in it is too large"),
        (b"9" * 5_000, "Exceeds the limit"),
        (b'{"\\ud800": 1}', r"'\\ud800' is half of a character"),
        (b'"\xff"', "'utf-8' codec can't decode byte 0xff"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
)
def test_what_no_json_of_ours_is(content, message):
    with pytest.raises(UserError, match=message):
        parse(content)


def test_nothing_in_a_text_is_evaluated(monkeypatch):
    monkeypatch.setenv("SECRET", "told")
    for text in ("${oc.env:SECRET}", "${name}", "{{ 1 }}", "!!python/name:os.system"):
        assert build(Cart, {**PLAIN, "name": text}).name == text

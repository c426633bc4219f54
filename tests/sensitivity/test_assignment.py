from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.sensitivity.assignment import best_assignment, least, monotone, total

BITS = (2, 4, 8)
number = st.floats(-1e-3, 1e3, allow_nan=False) | st.floats(0, 1e-6)


@st.composite
def problems(draw):
    layers = [f"layer{index}" for index in range(draw(st.integers(1, 5)))]
    damage = {layer: {bits: draw(number) for bits in BITS} for layer in layers}
    cost = {layer: {bits: draw(st.integers(1, 10**6)) for bits in BITS} for layer in layers}
    most = sum(max(widths.values()) for widths in cost.values())
    return damage, cost, draw(st.integers(least(cost), most + 1))


@given(problems())
@settings(max_examples=60, deadline=None)
def test_no_other_assignment_is_better(problem):
    damage, cost, budget = problem
    found = best_assignment(damage, cost, budget)
    assert total(cost, found) <= budget
    every = (dict(zip(damage, bits, strict=True)) for bits in product(BITS, repeat=len(damage)))
    best = min(total(damage, one) for one in every if total(cost, one) <= budget)
    worst = max(abs(value) for widths in damage.values() for value in widths.values())
    assert total(damage, found) == pytest.approx(best, abs=1e-9 * worst + 1e-300)


def test_a_generous_budget_takes_the_least_damage_everywhere():
    damage = {"a": {2: 1.0, 8: 0.0}, "b": {2: -0.5, 8: 0.0}}
    assert best_assignment(damage, {"a": {2: 2, 8: 8}, "b": {2: 2, 8: 8}}, 1000) == {"a": 8, "b": 2}


def test_a_tight_budget_goes_where_it_saves_most():
    damage = {"small": {2: 1.0, 8: 0.0}, "large": {2: 1.5, 8: 0.0}, "dull": {2: 0.0, 8: 0.0}}
    cost = {"small": {2: 20, 8: 80}, "large": {2: 200, 8: 800}, "dull": {2: 20, 8: 80}}
    assert best_assignment(damage, cost, 300) == {"small": 8, "large": 2, "dull": 2}


def test_less_than_the_least_is_refused():
    with pytest.raises(ValueError, match="a budget of 3 is below the least possible cost 4"):
        best_assignment({"a": {2: 0.0, 4: 0.0}}, {"a": {2: 4, 4: 8}}, 3)


def test_gains_by_chance_do_not_count():
    damage = {"a": {2: -0.5, 4: 0.25, 8: -0.125}, "b": {2: 3.0, 4: 1.0, 8: 0.5}}
    assert monotone(damage) == {"a": {2: 0.25, 4: 0.25, 8: 0.0}, "b": {2: 3.0, 4: 1.0, 8: 0.5}}

"""The bits of each layer that do the least damage under a budget: a multiple-choice knapsack, solved exactly."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from nibble.sensitivity.damage import Damage

Cost = Mapping[str, Mapping[int, float]]  # layer -> bits -> what it takes of the budget


def best_assignment(damage: Damage, cost: Cost, budget: float) -> dict[str, int]:
    """Choose bits for each layer: the least total damage whose total cost is within the budget.

    Damages are added, as if layers were independent. There is one binary variable for each layer and width, one
    equation a layer, one inequality for the budget; HiGHS proves the optimum.

    Raises:
        ValueError: the budget is below the least possible cost.
    """
    if budget < least(cost):
        raise ValueError(f"a budget of {budget:g} is below the least possible cost {least(cost):g}")
    choices = [(layer, bits) for layer, widths in damage.items() for bits in widths]
    values = np.array([damage[layer][bits] for layer, bits in choices])
    costs = np.array([cost[layer][bits] for layer, bits in choices], dtype=float)
    one_each = np.array([[float(layer == row) for layer, _ in choices] for row in damage])
    found = milp(
        1e4 * values / max(np.abs(values).max(), np.finfo(float).tiny),  # HiGHS stops at an absolute gap of 1e-6
        integrality=np.ones(len(choices)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(costs, -np.inf, budget)],
        options={"mip_rel_gap": 0},
    )
    if found.x is None:
        raise RuntimeError(f"the solver found no assignment: {found.message}")
    return {layer: bits for (layer, bits), chosen in zip(choices, found.x, strict=True) if chosen > 0.5}


def monotone(damage: Damage) -> Damage:
    """Damage that does not fall with fewer bits, and is never below 0.

    On a limited number of utterances, coarser rounding may lower the loss by chance; such gains would not add up.
    """
    rising: Damage = {}
    for layer, widths in damage.items():
        worst, rising[layer] = 0.0, {}
        for bits in sorted(widths, reverse=True):
            worst = rising[layer][bits] = max(worst, widths[bits])
    return rising


def least(cost: Cost) -> float:
    """The cost if every layer takes its cheapest width."""
    return sum(min(widths.values()) for widths in cost.values())


def total(table: Cost | Damage, assignment: Mapping[str, int]) -> float:
    """The sum of costs or damages of an assignment."""
    return sum(table[layer][bits] for layer, bits in assignment.items())

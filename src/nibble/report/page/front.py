"""The Pareto front of several systems, and which of its points can be labelled in a chart."""

import math
from collections.abc import Sequence

_LABEL = (0.24, 0.08)  # width and height of a label on a phone, as shares of the chart

Point = tuple[float, float]  # cost above 0 and errors; less is better in both


def pareto_front(points: Sequence[Point]) -> list[int]:
    """The indices of the points on the Pareto front (no cheaper point has fewer errors), the cheapest first."""
    found: list[int] = []
    for number in sorted(range(len(points)), key=lambda number: points[number]):
        if not found or points[number][1] < points[found[-1]][1]:
            found.append(number)
    return found


def apart(points: Sequence[Point], front: Sequence[int]) -> list[int]:
    """The points of a front whose labels don't overlap, chosen from the fewest errors on, then the cheapest."""
    places = {number: _place(points, number) for number in front}
    found: list[int] = []
    for number in [*front[-1:], *front[:-1]]:
        if not any(_overlap(places[number], places[other]) for other in found):
            found.append(number)
    return found


def _overlap(first: Point, second: Point) -> bool:
    """Whether two labels of the same size would stand on each other."""
    return all(abs(one - other) < size for one, other, size in zip(first, second, _LABEL, strict=True))


def _place(points: Sequence[Point], number: int) -> Point:
    """Where a point lies in a chart with logarithmic axes, each from 0 to 1."""
    logs = [[math.log1p(value) if axis else math.log(value) for axis, value in enumerate(point)] for point in points]
    place = []
    for axis in range(2):
        values = [log[axis] for log in logs]
        place.append((logs[number][axis] - min(values)) / (max(values) - min(values) or 1.0))
    return place[0], place[1]

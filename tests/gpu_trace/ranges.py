"""Whether a Triton kernel's 32-bit integers hold its sizes: bounds of every number that it computes from them.

A kernel's intermediate code (TTIR) names each value once. From the grid, the arguments and the constants the bounds of
most follow, line by line; what is loaded, or carried round a loop, has none and is not judged.
"""

import re

Bounds = tuple[int, int]

INT32 = (-(2**31), 2**31 - 1)
_LINE = re.compile(r"%(?P<name>[\w#]+) = (?P<operation>[\w.]+) (?P<rest>.*?)(?: loc\(.*)?$")
_FOR = re.compile(r"scf\.for %(\w+) = (%\w+) to (%\w+) step")
_SAME = {"tt.splat", "tt.expand_dims", "tt.broadcast", "tt.reshape", "tt.trans", "arith.extsi", "arith.extui"}


def overflows(ttir: str, grid: tuple[int, ...], integers: dict[str, int]) -> list[str]:
    """The lines whose 32-bit result may not fit, with its bounds.

    Args:
        ttir: of one kernel.
        grid: programs along each axis.
        integers: the largest value of each argument that is a number.
    """
    known: dict[str, Bounds] = {name: (min(value, 0), value) for name, value in integers.items()}
    found = []
    for line in ttir.splitlines():
        if (loop := _FOR.search(line)) is not None:
            counter, *ends = loop.groups()
            first, last = (known.get(end[1:]) for end in ends)
            if first and last:
                known[counter] = first[0], last[1]
        match = _LINE.search(line)
        if match is None:
            continue
        operands = [known.get(name) for name in re.findall(r"%([\w#]+)", match["rest"])]
        bounds = _bounds(match["operation"], match["rest"], operands, grid)
        if bounds is None:
            continue
        if re.search(r"i32>?$", match["rest"].strip()) and not INT32[0] <= bounds[0] <= bounds[1] <= INT32[1]:
            found.append(f"{match['name']} = {match['operation']}: {bounds[0]} ... {bounds[1]}")
        known[match["name"]] = bounds
    return found


def _bounds(operation: str, rest: str, operands: list[Bounds | None], grid: tuple[int, ...]) -> Bounds | None:
    """Of the result; None where they do not follow."""
    if operation == "arith.constant":
        number = re.match(r"(?:dense<)?(-?\d+)>? :", rest)
        return (int(number[1]), int(number[1])) if number else None
    if operation == "tt.get_program_id":
        return 0, grid["xyz".index(rest[0])] - 1
    if operation == "tt.make_range":
        start, end = (int(re.search(rf"{name} = (\d+)", rest)[1]) for name in ("start", "end"))  # type: ignore[index]
        return start, end - 1
    if not operands or any(bounds is None for bounds in operands):
        return None
    if operation in _SAME:
        return operands[0]
    if len(operands) != 2:
        return None
    (a, b), (c, d) = operands  # type: ignore[misc]
    if operation == "arith.addi":
        return a + c, b + d
    if operation == "arith.subi":
        return a - d, b - c
    if operation == "arith.muli":
        ends = a * c, a * d, b * c, b * d
        return min(ends), max(ends)
    if operation in ("arith.divsi", "arith.divui") and a >= 0:
        return 0, b // max(c, 1)
    if operation in ("arith.remsi", "arith.remui") and a >= 0:
        return 0, min(b, d - 1)
    if operation in ("arith.minsi", "arith.maxsi"):
        pick = min if operation == "arith.minsi" else max
        return pick(a, c), pick(b, d)
    return None

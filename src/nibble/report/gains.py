"""What training gains over rounding, and one run for several precisions over separate runs, on the same utterances."""

from collections.abc import Sequence

from nibble.percent import points_interval
from nibble.report.tables import System, baseline, is_deployed, markdown
from nibble.runs.method import Method

_GAINS = {  # column: (method, the simpler one)
    "GPTQ minus nearest": (Method.gptq, Method.ptq),
    "trained minus not trained": (Method.qat, Method.ptq),
    "distilled minus trained": (Method.distilled, Method.qat),
    "one run for several minus trained": (Method.shared, Method.qat),
}


def gains(rows: Sequence[System]) -> str:
    """A Markdown table of paired differences of WER, in points with their 95 % intervals; empty if there are none."""
    methods: dict[tuple[str, str], dict[Method, System]] = {}
    for system in rows:
        float_system = baseline(system, rows)
        # A later phase of the run whose float phase was rounded has trained longer as well.
        later = float_system is not None and system.is_phase_of_run_of(float_system)
        if not is_deployed(system.last) and not later:
            methods.setdefault((system.last.model, system.last.quant), {})[system.last.method] = system
    lines = [[*key, *(_difference(found, *pair) for pair in _GAINS.values())] for key, found in methods.items()]
    lines = [line for line in lines if any(line[2:])]
    used = [0, 1, *(column for column in range(2, 2 + len(_GAINS)) if any(line[column] for line in lines))]
    if len({line[0] for line in lines}) == 1:
        used.remove(0)  # one model, which needs no name
    header, *lines = ([line[column] for column in used] for line in (["model", "quant", *_GAINS], *lines))
    return markdown(header, lines) if lines else ""


def _difference(found: dict[Method, System], method: Method, simpler: Method) -> str:
    if method not in found or simpler not in found:
        return ""
    return points_interval(found[method].difference(found[simpler]))

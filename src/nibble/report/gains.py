"""What a way to a precision gains over a simpler one, on the same utterances and seeds."""

from collections.abc import Sequence

from nibble.report.tables import System, baseline, engine, markdown, points

_GAINS = {  # column: (method, the simpler one)
    "GPTQ minus nearest": ("gptq", "ptq"),
    "trained minus not trained": ("qat", "ptq"),
    "distilled minus trained": ("distilled", "qat"),
    "one run for several minus trained": ("shared", "qat"),
}


def gains(rows: Sequence[System]) -> str:
    """A Markdown table of paired differences of WER, in points with their 95 % intervals; empty if there are none."""
    methods: dict[tuple[str, str], dict[str, System]] = {}
    for system in rows:
        float_system = baseline(system, rows)
        # A later phase of the run whose float phase was rounded has trained longer as well.
        later = float_system is not None and system.is_phase_of_run_of(float_system)
        if engine(system.last) == "torch" and not later:
            methods.setdefault((system.last.model, system.last.quant), {})[system.last.method] = system
    lines = [[*key, *(_difference(found, *pair) for pair in _GAINS.values())] for key, found in methods.items()]
    lines = [line for line in lines if any(line[2:])]
    return markdown(["model", "quant", *_GAINS], lines) if lines else ""


def _difference(found: dict[str, System], method: str, simpler: str) -> str:
    if method not in found or simpler not in found:
        return ""
    return points(found[method].difference(found[simpler]))

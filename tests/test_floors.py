"""Every module imports only from the floors below its own; the network, the quantizer and the data stay strangers."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src"

# From the ground up. A name stands for a module or a room; the longest one that fits a module is its floor.
FLOORS = (
    *("conventions", "percent", "errors", "plain", "ranges", "provenance", "writing", "terminal", "progress"),
    *("threads", "memory", "gpu_memory", "stopping", "distributed", "parameter_cache", "packages", "shapes"),
    *("wandb_key", "own_process"),
    "kernels",
    *("features.options", "features", "hardware", "device"),
    *("data.options", "data"),
    *("model.options", "model"),
    *("quant.analog_spec", "quant.spec", "quant"),
    # What the options of the rooms above say, a run keeps with it.
    *("training.options", "evaluation.options", "post_training.options", "export.options", "sensitivity.options"),
    *("config", "composition", "runs", "imports", "inference", "export", "evaluation", "post_training", "training"),
    *("sensitivity", "bench", "report", "dashboard", "evidence", "commands"),
)
STRANGERS = {
    "kernels": ("data", "model", "quant"),
    "data": ("model", "quant"),
    "model": ("data", "quant"),
    "quant": ("data", "model"),
}
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """The name of a module without the leading `nibble.`; that of the package is empty."""
    return ".".join(path.relative_to(ROOT / "nibble").with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imports(path: Path) -> set[str]:
    """The modules of nibble that a file imports, without the leading `nibble.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nibble":
            for alias in node.names:
                inner = ROOT / "/".join([*node.module.split("."), f"{alias.name}.py"])
                found.add(f"{node.module}.{alias.name}" if inner.is_file() else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "nibble"}
    return {name.removeprefix("nibble").lstrip(".") for name in found}


def fits(name: str, floor: str) -> bool:
    return name == floor or name.startswith(f"{floor}.")


def floor_of(name: str) -> int:
    """How high a module is. A file that `python -m` runs hands over to a command at once, so it is one of them."""
    if name.endswith("__main__") or (ROOT / "nibble" / f"{name.replace('.', '/')}.py").read_text().startswith(
        '"""python -m nibble.'
    ):
        name = "commands"
    fitting = [floor for floor in FLOORS if fits(name, floor)]
    assert fitting, f"nibble.{name} has no floor: give it one in {Path(__file__).name}"
    return FLOORS.index(max(fitting, key=len))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path):
    name = name_of(path)
    if not name:
        return
    above = sorted(other for other in imports(path) if other and floor_of(other) > floor_of(name))
    assert not above, f"nibble.{name} must not import from above: nibble.{', nibble.'.join(above)}"


@pytest.mark.parametrize("room", STRANGERS)
def test_rooms_that_must_not_know_each_other(room):
    paths = [path for path in MODULES if fits(name_of(path), room)]
    arrows = [
        f"nibble.{name_of(path)} -> nibble.{other}"
        for path in paths
        for other in imports(path)
        if any(fits(other, stranger) for stranger in STRANGERS[room])
    ]
    assert paths
    assert not arrows, f"imports between strangers: {', '.join(arrows)}"

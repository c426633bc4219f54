"""Each room imports only from the floors below it; the network and the quantizer don't know each other."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nibble"
BASE = {"errors", "config", "writing", "stopping", "terminal"}
MAY_IMPORT = {
    "errors": set(),
    "schema": {"errors"},
    "ranges": {"errors"},
    "provenance": set(),
    "processes": set(),
    "steady": set(),
    "threads": set(),
    "gpu_memory": set(),
    "writing": set(),
    "terminal": {"errors"},
    "stopping": {"errors", "provenance"},
    # The options of quantization are plain data, defined in their own room.
    "config": {"errors", "schema", "ranges", "quant.spec"},
    "features": BASE,
    # Kernels of the loss are launched as all others are.
    "model": BASE | {"processes", "steady", "kernels.triton.launching"},
    "kernels": {"errors", "writing", "stopping"},
    "info": {"errors", "provenance", "kernels", "stopping", "terminal", "threads"},
    "quant": {"errors", "kernels", "processes", "steady"},
    "data": BASE | {"schema", "features", "model.subsampling"},  # how many frames an utterance becomes
    "export": BASE | {"cli", "schema", "provenance", "features", "model", "kernels", "quant", "data"},
    "evaluation": BASE | {"schema", "provenance", "features", "model", "kernels", "quant", "data", "export"},
    "sensitivity": BASE | {"schema", "provenance", "cli", "model", "quant", "data", "export", "evaluation"},
    "wandb_key": {"errors"},
    "training": BASE
    | {"processes", "provenance", "wandb_key", "features", "model", "kernels", "quant", "data", "export", "evaluation"},
    "rank": BASE | {"cli", "processes", "evaluation", "training"},
    # What is measured is at the top: whole bundles, encoders, training steps. Only what prints it stands above.
    "bench": BASE
    | {"schema", "provenance", "cli", "features", "model", "kernels", "quant", "data", "export", "evaluation"}
    | {"threads"},  # what is told to OpenMP is measured too
    "report": BASE
    | {"bench", "features", "model", "kernels", "quant", "data", "export", "evaluation", "transcribe", "provenance"}
    | {"schema", "sensitivity"},  # reads the tables that it writes
    "dashboard": {"errors", "wandb_key", "writing", "stopping"},
    "transcribe": BASE | {"features", "model", "data", "export"},
    "quantize": BASE | {"export", "evaluation", "cli"},
    "options": set(),
    "help": {"options"},
    "cli": BASE | {"help", "sweep", "training.resume"},
    "sweep": BASE | {"schema", "processes", "provenance", "evaluation", "report"},
}


def imports(path: Path) -> set[str]:
    """The modules of nibble that a file imports, without the leading `nibble.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "nibble" else [node.module]
            )
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.removeprefix("nibble.") for name in names if name.startswith("nibble.")}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downwards(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    allowed = MAY_IMPORT[room] | {room}
    for name in imports(path):
        parts = name.split(".")
        prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        assert prefixes & (allowed | {"__version__"}), f"{room} must not import nibble.{name}"

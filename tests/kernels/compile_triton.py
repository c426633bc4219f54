"""Compile Triton kernels for GPUs that are not there.

Run as a process of its own, because where the tests run the kernels are interpreted.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path


@dataclass
class Kernel:
    """What to compile."""

    label: str
    module: str
    kernel: str  # its name in the module
    types: dict[str, str]  # of arguments that are no constants
    constants: dict[str, object]
    warps: int
    stages: int = 3
    multiples_of_16: list[str] = field(default_factory=list)  # numbers that are known to be
    capabilities: tuple[int, ...] = (80, 90, 120)


@dataclass
class Made:
    """What a kernel became for one GPU."""

    file: str  # with the machine code
    ptx: str
    shared_bytes: int


def compile_all(kernels: list[Kernel], folder: Path) -> dict[str, Made]:
    """Label_capability -> what was made, in `folder`."""
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder)}
    given = json.dumps([asdict(kernel) for kernel in kernels])
    done = subprocess.run(
        [sys.executable, __file__, folder], env=env, input=given, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr[-2000:]
    return {name: Made(**made) for name, made in json.loads(done.stdout.splitlines()[-1]).items()}


def main(folder: Path) -> None:
    """Compile the kernels that come as JSON, and print as JSON what they became."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    found = {}
    for asked in (Kernel(**words) for words in json.load(sys.stdin)):
        kernel = getattr(import_module(asked.module), asked.kernel)
        names, known = kernel.arg_names, asked.multiples_of_16
        signature = {name: "constexpr" if name in asked.constants else asked.types[name] for name in names}
        aligned = [name for name, kind in signature.items() if kind.startswith("*") or name in known]
        attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
        for capability in asked.capabilities:
            made = triton.compile(
                ASTSource(kernel, signature, asked.constants, attributes),
                target=GPUTarget("cuda", capability, 32),
                options={"num_warps": asked.warps, "num_stages": asked.stages, "enable_fp_fusion": False},
            )
            file = folder / f"{asked.label}_{capability}.cubin"
            file.write_bytes(made.asm["cubin"])
            found[file.stem] = asdict(Made(str(file), made.asm["ptx"], made.metadata.shared))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

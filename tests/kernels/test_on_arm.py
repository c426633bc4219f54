"""The NEON kernels in an emulator of ARM: the same integers as the portable path gives on this machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.kernels.compiling import cxx, run
from nibble.kernels.cpu import build

DRIVER = Path(__file__).with_name("on_arm.cpp")
ARM_CXX, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
WITHOUT_TORCH = {"portable": (), "steps_portable": build.FUSED}
ON_ARM = {**WITHOUT_TORCH, "paths": (), **build.OF_MACHINE["aarch64"]}


def compiled(compiler: str, units: dict[str, tuple[str, ...]], folder: Path, *options: str) -> Path:
    """The driver with these units."""
    flags = [*build.FLAGS, f"-I{build.FOLDER}", '-DNIBBLE_SOURCES=""']
    objects = []
    for name, more in units.items():
        objects.append(str(folder / f"{name}.o"))
        run([compiler, *flags, *more, "-c", str(build.FOLDER / f"{name}.cpp"), "-o", objects[-1]], build.NEEDED)
    program = folder / "driver"
    run([compiler, *flags, *options, str(DRIVER), *objects, "-o", str(program)], build.NEEDED)
    return program


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the portable path prints on this machine."""
    try:
        compiler = cxx()
    except UserError as error:
        pytest.skip(str(error))
    program = compiled(compiler, WITHOUT_TORCH, tmp_path_factory.mktemp("here"))
    first, *lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    assert first == "path portable"
    assert not [line for line in lines if "far" in line]
    return lines


@pytest.fixture(scope="module")
def on_arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in (ARM_CXX, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: apt-get install g++-aarch64-linux-gnu qemu-user-static")
    return compiled(ARM_CXX, ON_ARM, tmp_path_factory.mktemp("arm"), "-static")


@pytest.mark.parametrize(("cpu", "paths"), [("cortex-a53", ["portable"]), ("neoverse-n1", ["portable", "neon_dot"])])
def test_the_same_integers(on_arm, expected, cpu, paths):
    """Cortex-A53 has no dot product instruction, Neoverse N1 has."""
    done = subprocess.run([EMULATOR, "-cpu", cpu, on_arm], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "path":
            found[rest] = []
        elif kind == "fastest":
            assert rest == paths[-1]
        else:
            found[list(found)[-1]].append(line)
    assert list(found) == paths
    for path in paths:
        assert found[path] == expected, path

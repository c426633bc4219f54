"""A wheel brings the compiled kernels to a machine without a compiler."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from nibble.kernels.cpu import library

ROOT = Path(__file__).parents[2]
PARTS = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")
PLATFORM = sysconfig.get_platform().replace("-", "_")
RUN = """
import shutil, torch
from nibble.kernels import ops
from nibble.kernels.implementations import used_by
assert not any(map(shutil.which, ("g++", "clang++", "cc")))
x, weight = (torch.randint(-128, 128, (n, 70), dtype=torch.int8) for n in (5, 9))
assert torch.equal(ops.int_matmul(x, weight), ops.int_matmul.reference(x, weight))
print(ops.__file__)
print(used_by("int_matmul", "cpu"))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy, without network; only the CPU library, as on a machine without CUDA."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools 77 or later is not installed: pip install -e '.[dev]'")
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in PARTS:
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*cuda.so")
    )
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", dist, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = dist.iterdir()
    return found


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel; what it depends on is seen in this one's folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return python


def run(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Without compilers, and without the repository."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NIBBLE_KERNELS")}
    environment["PATH"] = str(folder)
    return subprocess.run([python, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(library.missing() is not None, reason=f"the CPU kernels cannot be loaded: {library.missing()}")
def test_the_kernels_run_without_a_compiler(elsewhere, wheel, tmp_path):
    assert wheel.name.endswith(f"-py3-none-{PLATFORM}.whl")
    done = run(elsewhere, tmp_path, "-c", RUN)
    assert done.returncode == 0, done.stderr
    file, used = done.stdout.splitlines()
    assert Path(file).is_relative_to(elsewhere.parents[1])
    assert used.startswith("cpu (")


def test_what_needs_the_checkout_says_so(elsewhere, tmp_path):
    """Neither conf/ nor train.py is in a wheel."""
    done = run(elsewhere, tmp_path, "-m", "nibble.quantize", "checkpoint=run")
    assert done.returncode == 1
    assert "clone the repository, and there: pip install -e ." in done.stderr


def test_a_wheel_has_what_the_library_is_checked_against(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"nibble/kernels/checks.h", "nibble/kernels/cpu/paths.cpp", "nibble/kernels/cpu/build.py"} <= set(names)

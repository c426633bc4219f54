"""The platform of a wheel: pyproject.toml says all else."""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

COMPILED = list(Path(__file__).parent.glob("src/nibble/kernels/*/*.so"))


class Contents(Distribution):
    """What is packed."""

    def has_ext_modules(self) -> bool:
        """Whether it is for one platform: it is if the kernels have been compiled."""
        return bool(COMPILED)


class Wheel(bdist_wheel):
    """py3-none-linux_x86_64 with the compiled kernels inside, py3-none-any without.

    They use torch's stable ABI and nothing of Python's, so one wheel serves all versions of both.
    """

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3."""
        return ("py3", "none", super().get_tag()[2])


setup(distclass=Contents, cmdclass={"bdist_wheel": Wheel})

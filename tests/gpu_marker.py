"""Tests marked `gpu`: skipped where there is no GPU. Where there is one, nothing excuses them from running.

A kernel library that is not built fails them, and so does a skip from inside. Elsewhere Triton takes the place of a
CUDA library that is missing, and says so in a line; here that would leave the library untested.
"""

from collections.abc import Generator

import pytest

from nibble.kernels.cuda import library as cuda
from nibble.kernels.gpu import missing_gpu
from nibble.kernels.triton import library as triton


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    if (reason := missing_gpu()) is not None:
        pytest.skip(reason)
    for name, missing in (("CUDA", cuda.missing), ("Triton", triton.missing)):
        if (reason := missing()) is not None:
            pytest.fail(
                f"on a machine with a GPU all its kernels are tested, but {name} kernels: {reason}", pytrace=False
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.get_closest_marker("gpu") is not None and missing_gpu() is None:
        report.outcome = "failed"
        report.longrepr = f"skipped on a machine with a GPU: {report.longrepr}"
    return report

"""Where there is a GPU, a test that is marked so runs or fails."""

from pathlib import Path

import pytest

pytest_plugins = "pytester"

PLUGIN = Path(__file__).with_name("gpu_marker.py").read_text()
TESTS = """
    import pytest

    @pytest.mark.gpu
    def test_runs(): pass

    @pytest.mark.gpu
    def test_skips(): pytest.skip("not today")

    def test_of_the_cpu_skips(): pytest.skip("not today")
"""


@pytest.mark.parametrize(
    ("gpu", "library", "outcomes"),
    [
        ("no GPU", None, {"skipped": 3}),
        (None, None, {"passed": 1, "failed": 1, "skipped": 1}),
        (None, "not built", {"errors": 2, "skipped": 1}),
    ],
)
def test_no_excuse_where_there_is_a_gpu(pytester, gpu, library, outcomes):
    pytester.makeini("[pytest]\nmarkers = gpu: needs a CUDA device")
    pretence = [
        "from types import SimpleNamespace",
        f"cuda = triton = SimpleNamespace(missing=lambda: {library!r})",
        f"missing_gpu = lambda: {gpu!r}",
    ]
    pytester.makeconftest("\n".join([PLUGIN, *pretence]))
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.assert_outcomes(**outcomes)

"""A fixture for rooms whose tensors are small: a second thread would only wait."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For a whole module, so that its other fixtures sum in the same order as its tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

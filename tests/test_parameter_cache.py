"""Values computed from parameters are kept while these are constant, and no longer."""

import copy
import pickle
import threading

import pytest
import torch

from nibble.parameter_cache import ParameterCache, constant_parameters


class Counter:
    """Says how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


def test_without_a_version_and_outside_of_a_step_nothing_is_kept() -> None:
    cache, make = ParameterCache(), Counter()
    assert [cache.get("a", make) for _ in range(3)] == [1, 2, 3]


def test_a_step_keeps_the_value_of_each_key_and_cache() -> None:
    cache, other, make = ParameterCache(), ParameterCache(), Counter()
    with constant_parameters():
        assert [cache.get(key, make) for key in "aba"] == [1, 2, 1]
        with constant_parameters():
            assert cache.get("a", make) == 1
        assert cache.get("a", make) == 1
        assert other.get("a", make) == 3
    with constant_parameters():
        assert cache.get("a", make) == 4


def test_a_value_can_be_put_into_a_step() -> None:
    cache, make = ParameterCache(), Counter()
    with constant_parameters():
        cache.put("a", 7)
        assert cache.get("a", make) == 7
        assert cache.get("a", make, torch.zeros(2)) == 7
    assert cache.get("a", make) == 1
    with pytest.raises(AssertionError, match="only within"):
        cache.put("a", 7)


def test_an_error_ends_a_step() -> None:
    cache, make = ParameterCache(), Counter()

    @constant_parameters()
    def fails() -> None:
        cache.get("a", make)
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert cache.get("a", make) == 2


def test_another_thread_is_in_no_step() -> None:
    cache, make = ParameterCache(), Counter()
    with constant_parameters():
        cache.get("a", make)
        thread = threading.Thread(target=lambda: cache.get("a", make))
        thread.start()
        thread.join()
    assert make.calls == 2


def test_a_version_keeps_a_value_until_its_tensor_changes() -> None:
    cache, make, x = ParameterCache(), Counter(), torch.zeros(3)
    assert [cache.get("a", make, x) for _ in range(2)] == [1, 1]
    x.add_(1)
    assert [cache.get("a", make, x) for _ in range(2)] == [2, 2]
    x.data = torch.ones(3)  # the same tensor with another memory
    assert cache.get("a", make, x) == 3
    assert cache.get("a", make, x.clone()) == 4
    cache.clear()
    assert cache.get("a", make, x) == 5


def test_tensors_without_a_version_or_values_are_not_trusted() -> None:
    cache, make = ParameterCache(), Counter()
    with torch.inference_mode():
        x = torch.zeros(3)
        assert [cache.get("a", make, x) for _ in range(2)] == [1, 2]
    assert [cache.get("a", make, torch.zeros(3, device="meta")) for _ in range(2)] == [3, 4]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copy_starts_empty(copied) -> None:
    cache, make, x = ParameterCache(), Counter(), torch.zeros(3)
    cache.get("a", make, x)
    assert copied(cache).get("a", make, x) == 2
    assert cache.get("a", make, x) == 1

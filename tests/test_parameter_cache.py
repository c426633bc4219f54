"""What is made of a parameter is kept within `steady_parameters`, and only there."""

import threading

import pytest

from nibble.parameter_cache import made_once, steady_parameters


class Counter:
    """Says how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


def test_outside_everything_is_made_anew() -> None:
    make = Counter()
    assert [made_once("a", make) for _ in range(3)] == [1, 2, 3]


def test_inside_it_is_made_once_for_each_key() -> None:
    make = Counter()
    with steady_parameters():
        assert [made_once(key, make) for key in "aba"] == [1, 2, 1]
        with steady_parameters():
            assert made_once("a", make) == 1
        assert made_once("a", make) == 1
    with steady_parameters():
        assert made_once("a", make) == 3


def test_an_error_ends_it() -> None:
    make = Counter()

    @steady_parameters()
    def fails() -> None:
        made_once("a", make)
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert made_once("a", make) == 2


def test_another_thread_keeps_nothing() -> None:
    make = Counter()
    with steady_parameters():
        made_once("a", make)
        thread = threading.Thread(target=lambda: made_once("a", make))
        thread.start()
        thread.join()
    assert make.calls == 2

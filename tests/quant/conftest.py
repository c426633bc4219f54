"""Fixtures of the quantizer's tests."""

from one_thread import one_thread  # noqa: F401 - a fixture

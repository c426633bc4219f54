"""Operators for a GPU in Triton: compiled by it when first called there, and run by its interpreter in the tests."""

"""The integer operators, one schema each, and their implementations."""

"""The integer operators, one schema each."""

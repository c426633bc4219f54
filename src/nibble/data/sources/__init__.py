"""Readers of the corpus formats that people bring."""

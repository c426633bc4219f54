"""Corpora that can be made or downloaded."""

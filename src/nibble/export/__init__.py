"""Exports trained checkpoints for deployment."""

"""Trained checkpoints to what is deployed."""

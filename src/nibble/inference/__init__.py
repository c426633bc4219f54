"""Fused graphs and transcription."""

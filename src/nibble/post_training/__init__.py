"""Quantization of trained float models without further training."""

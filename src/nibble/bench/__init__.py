"""Benchmarks: ratios against what users would pick instead, measured side by side."""

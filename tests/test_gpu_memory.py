"""Torch's segments of GPU memory grow, unless the user has chosen."""

import os
import subprocess
import sys

import pytest

SAY = "import nibble, os; print({name: os.environ[name] for name in sorted(os.environ) if 'ALLOC_CONF' in name})"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"}, {"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}),
    ],
)
def test_segments_grow_unless_the_user_has_chosen(chosen, expected):
    clean = {name: value for name, value in os.environ.items() if "ALLOC_CONF" not in name}
    done = subprocess.run([sys.executable, "-c", SAY], env=clean | chosen, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)

"""The operators in CUDA C++, for NVIDIA GPUs from Ampere on, with Hopper's own matrix instruction where it is."""

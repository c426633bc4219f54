// Compiles launch.cuh for real GPUs.
#include "gpu.cuh"
#include "launch.cuh"

// Which kernel for which size and GPU.
#include "gpu.cuh"
#include "launch.cuh"

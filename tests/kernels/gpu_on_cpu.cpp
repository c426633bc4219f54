// The launchers of the CUDA kernels, for the memory and the processor of any machine.
#include "gpu_on_cpu.h"

#define NIBBLE_WITH_HOPPER
#include "launch.cuh"

extern "C" void emulate(int capability) { emulated::capability = capability; }

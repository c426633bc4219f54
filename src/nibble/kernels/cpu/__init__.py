"""The operators in C++ for CPU tensors: AVX-512 VNNI, AVX2, NEON dot product, or any machine, chosen at run time."""

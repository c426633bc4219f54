"""The product of two matrices of codes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import checks
from nibble.kernels.operator import Operator

CUBLAS_BYTES = 2**31 - 1  # the largest operand or result of one call of cuBLAS


class IntMatmul(NamedTuple):
    """x weight^T: int32 (M, N)."""

    x: Tensor  # int8 (M, K)
    weight: Tensor  # int8 (N, K)

    def check(self) -> None:
        """Raise RuntimeError unless types and sizes fit."""
        name = "int_matmul"
        checks.same_device(name, self.x, self.weight)
        checks.both_int8(name, self.x, self.weight)
        checks.matrices(name, self.x, self.weight)
        checks.terms(name, self.x.shape[1])

    def shape(self) -> Tensor:
        """The result without values."""
        return self.x.new_empty((self.x.shape[0], self.weight.shape[0]), dtype=torch.int32)

    def reference(self) -> Tensor:
        """The result in plain torch."""
        # oneDNN reads overlapping rows (of unfold) or rows of stride 0 (of expand) wrongly.
        x, weight = self.x.contiguous(), self.weight.contiguous()
        if x.is_cuda:
            return by_cublas(x, weight)
        if x.shape[1] == 1:  # torch 2.11 gives wrong sums of a single term; a second one of zero changes no sum
            x, weight = F.pad(x, (0, 1)), F.pad(weight, (0, 1))
        return torch._int_mm(x, weight.t())


int_matmul = Operator("int_matmul(Tensor x, Tensor weight) -> Tensor", IntMatmul)


def by_cublas(x: Tensor, weight: Tensor) -> Tensor:
    """x weight^T on a GPU: cuBLASLt wants more than 16 rows, and K and N in multiples of 8."""
    (rows, terms), outputs = x.shape, weight.shape[0]
    if not rows or not terms or not outputs:
        return x.new_zeros((rows, outputs), dtype=torch.int32)
    x = padded(x, (0, -terms % 8))  # codes of zero change no sum
    weight = padded(weight, (0, -terms % 8, 0, -outputs % 8))

    def product(part: Tensor) -> Tensor:
        enough = padded(part, (0, 0, 0, max(0, 17 - len(part))))
        return torch._int_mm(enough, weight.t())[: len(part), :outputs]

    # In parts of less than 2^31 bytes, the most that one call can count; each begins at an aligned address.
    most = max(16, CUBLAS_BYTES // max(x.shape[1], 4 * len(weight)) // 16 * 16)
    parts = [product(part) for part in x.split(most)]
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def padded(x: Tensor, by: tuple[int, ...]) -> Tensor:
    """F.pad without its copy where there is nothing to add."""
    return F.pad(x, by) if any(by) else x

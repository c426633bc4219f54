"""Time of the linear products of a Conformer block on a GPU, against cuBLAS in bfloat16 and torch's own int8 product.

Rows are the frames of 1200 s of speech. Training's product takes codes of 8 bits on both sides; a bundle's takes
weights of 4 bits. With the quantizer: from bfloat16 activations; without: from codes.
"""

import torch
import torch.nn.functional as F

from nibble.bench.gpu_counts import counts, finished
from nibble.bench.records import Measurement, with_counts
from nibble.bench.timing import in_turns, measurements
from nibble.kernels import implementations, ops
from nibble.kernels.nibbles import pack_rows
from nibble.quant.numerics import quantize_weight
from nibble.quant.spec import WeightSpec

SHAPES = ((512, 512), (512, 1024), (512, 2048), (2048, 512))  # K, N
ROWS = (30_000,)
_ROUNDS = 7
_FLOAT, _INT_MM = "cuBLAS bfloat16", "torch._int_mm"


def measure(rows: tuple[int, ...] = ROWS, rounds: int = _ROUNDS) -> list[Measurement]:
    """Each of our products against both."""
    return [one for count in rows for shape in SHAPES for one in _shape(count, *shape, rounds)]


def _shape(rows: int, terms: int, outputs: int, rounds: int) -> list[Measurement]:
    w8a8, w4a8 = (f"{name}, {implementations.used_by(name, 'cuda')}" for name in ("linear_w8a8", "linear_w4a8"))
    gpu = torch.device("cuda")
    torch.manual_seed(0)
    x = torch.randn(rows, terms, device=gpu, dtype=torch.bfloat16)
    weight, bias = torch.randn(outputs, terms, device=gpu), torch.randn(outputs, device=gpu)
    half_weight, half_bias = weight.bfloat16(), bias.bfloat16()
    codes, scale = ops.quantize_rows(x)
    w8, w8_scale, _ = quantize_weight(weight, WeightSpec(8), "weight")
    w4, w4_scale, _ = quantize_weight(weight, WeightSpec(4), "weight")
    packed, scales8, scales4 = pack_rows(w4), w8_scale.view(-1), w4_scale.view(-1)
    ours = {
        w8a8: lambda: ops.linear_w8a8(codes, scale, w8, scales8, bias),
        f"quantize_rows, {w8a8}": lambda: ops.linear_w8a8(*ops.quantize_rows(x), w8, scales8, bias),
        w4a8: lambda: ops.linear_w4a8(codes, scale, packed, scales4, bias),
    }
    contenders = {
        **ours,
        _FLOAT: lambda: F.linear(x, half_weight, half_bias),
        _INT_MM: lambda: torch._int_mm(codes, w8.t()),
    }
    case = f"{rows} rows, {terms} to {outputs}, GPU"
    times = in_turns({name: finished(call) for name, call in contenders.items()}, rounds, case)
    counted = {name: counts(call) for name, call in contenders.items()}
    pairs = [(name, baseline) for name in ours for baseline in (_FLOAT, _INT_MM)]
    return with_counts(measurements("gemm", case, times, pairs, torch.get_num_threads(), gpu), counted)

"""Time of a linear layer with 4-bit weights and 8-bit activations, against what users would pick instead.

The shapes are those of a Conformer block with D = 512; rows are frames, from one frame to 40 s at once. Float
activations go in and come out everywhere: ours are quantized by `quantize_rows`, the others quantize inside.
"""

import copy
import math
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nibble.bench.records import Measurement
from nibble.bench.timing import Times, in_turns, measurements, torch_threads
from nibble.errors import UserError
from nibble.kernels import implementations, ops
from nibble.kernels.nibbles import pack_rows
from nibble.packages import need
from nibble.quant.numerics import quantize_weight
from nibble.quant.spec import WeightSpec

SHAPES = ((512, 512), (512, 1024), (512, 2048), (2048, 512))  # K, N
ROWS = (1, 16, 64, 256, 1000)
_ROUNDS = 7
_FLOAT = "torch float32"
_ENGINES = ("x86", "onednn")  # of torch's dynamic int8

Layer = Callable[[], object]


def measure(rows: tuple[int, ...] = ROWS, rounds: int = _ROUNDS) -> list[Measurement]:
    """Measure on one thread and on all, for each number of rows: each shape against float32, the mean against all
    contenders.

    Raises:
        UserError: the CPU kernels are not built, or a package that we compare with is not installed.
    """
    used = implementations.used_by("linear_w4a8", "cpu")
    if used == implementations.REFERENCE:
        raise UserError("the CPU kernels do not run here; python -m nibble.info says why, and make kernels builds them")
    for package, extra in (("onnx", "export"), ("onnxruntime", "export"), ("torchao", "bench")):
        need(package, "python -m nibble.bench gemm", extra)
    found = []
    for threads in sorted({1, torch.get_num_threads()}):
        with torch_threads(threads), torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
            for count in rows:
                found += _rows(f"linear_w4a8, {used}", count, threads, rounds, Path(folder))
    return found


def _rows(ours: str, count: int, threads: int, rounds: int, folder: Path) -> list[Measurement]:
    times = {shape: _time(ours, *shape, count, rounds, folder) for shape in SHAPES}
    counted = "1 row" if count == 1 else f"{count} rows"
    also = f", {threads} threads" if threads > 1 else ""
    found = []
    for (terms, outputs), of_shape in times.items():
        case = f"{counted}, {terms} to {outputs}{also}"
        found += measurements("gemm", case, of_shape, [(ours, _FLOAT)], threads)
    case = f"{counted}, mean of {len(SHAPES)} shapes{also}"
    baselines = [name for name in times[SHAPES[0]] if name != ours]
    return found + [_mean(case, ours, baseline, list(times.values()), threads) for baseline in baselines]


def _time(ours: str, terms: int, outputs: int, rows: int, rounds: int, folder: Path) -> dict[str, Times]:
    layer = nn.Linear(terms, outputs)
    x = torch.randn(rows, terms)
    contenders = {
        ours: _w4a8(layer, x),
        _FLOAT: lambda: layer(x),
        **{f"torch dynamic int8, {engine}": _torch_dynamic(layer, x, engine) for engine in _ENGINES},
        "torchao dynamic int8": _torchao(layer, x),
        "ONNX Runtime dynamic int8": _onnx_dynamic(layer, x, folder),
        "ONNX Runtime MatMulNBits": _onnx_nbits(layer, x, folder),
    }
    return in_turns(contenders, rounds, f"{rows} x {terms} x {outputs}")


def _mean(case: str, ours: str, baseline: str, times: list[dict[str, Times]], threads: int) -> Measurement:
    """The geometric mean of the ratios of all shapes."""
    each = [measurements("gemm", case, of_shape, [(ours, baseline)], threads)[0] for of_shape in times]
    ratio = math.exp(math.fsum(math.log(one.ratio) for one in each) / len(each))
    return replace(each[0], ratio=ratio, median_ms=None, wall_ms=None)


def _w4a8(layer: nn.Linear, x: Tensor) -> Layer:
    weight = quantize_weight(layer.weight, WeightSpec(4), "weight")
    packed, scales, bias = pack_rows(weight.codes), weight.channel_scale(), layer.bias
    return lambda: ops.linear_w4a8(*ops.quantize_rows(x), packed, scales, bias)


def _torch_dynamic(layer: nn.Linear, x: Tensor, engine: str) -> Layer:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear})[0]
    finally:
        torch.backends.quantized.engine = before
    return lambda: quantized(x)


def _torchao(layer: nn.Linear, x: Tensor) -> Layer:
    """8-bit weights: for 4 bits its wheels have no kernels that run on a CPU."""
    warnings.filterwarnings("ignore", module="torchao")  # deprecations, at each call
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantized = nn.Sequential(copy.deepcopy(layer))
    quantize_(quantized, Int8DynamicActivationInt8WeightConfig())
    return lambda: quantized(x)


def _onnx_dynamic(layer: nn.Linear, x: Tensor, folder: Path) -> Layer:
    """Signed weights, one scale a channel: its fastest."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = folder / "dynamic.onnx"
    quantize_dynamic(_onnx_model(layer, folder), quantized, per_channel=True, weight_type=QuantType.QInt8)
    return _session(quantized, x)


def _onnx_nbits(layer: nn.Linear, x: Tensor, folder: Path) -> Layer:
    """4 bits, blocks of 128, accuracy level 4: activations of int8, its fastest."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(_onnx_model(layer, folder)), block_size=128, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "nbits.onnx"))
    return _session(folder / "nbits.onnx", x)


def _onnx_model(layer: nn.Linear, folder: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    outputs, terms = layer.weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", terms])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [
            numpy_helper.from_array(layer.weight.detach().t().contiguous().numpy(), "w"),
            numpy_helper.from_array(layer.bias.detach().numpy(), "b"),
        ],
    )
    path = folder / "float.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    # There is nothing to pre-process, and ONNX Runtime would warn.
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    onnx.save(model, path)
    return path


def _session(path: Path, x: Tensor) -> Layer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return lambda: session.run(None, given)

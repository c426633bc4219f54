"""Time of a linear layer with 4-bit weights and 8-bit activations, against what users would pick instead.

The shapes are those of a Conformer block with D = 512; rows are frames, from one of streaming to 40 s at once. Float
activations go in and come out everywhere: ours are quantized by `quantize_rows`, those of the others inside.
"""

import math
import tempfile
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
from nibble.quant.numerics import quantize_weight
from nibble.quant.spec import WeightSpec

SHAPES = ((512, 512), (512, 1024), (512, 2048), (2048, 512))  # K, N
ROWS = (1, 16, 64, 256, 1000)
_ROUNDS = 7
_FLOAT = "torch float32"
_ENGINES = ("x86", "onednn")  # of torch's dynamic int8

Layer = Callable[[], object]


def measure(rows: tuple[int, ...] = ROWS, rounds: int = _ROUNDS) -> list[Measurement]:
    """For each number of rows: each shape against float32, and the geometric mean over the shapes against all.

    Raises:
        UserError: the CPU kernels are not built, or ONNX Runtime is not installed.
    """
    used = implementations.used_by("linear_w4a8", "cpu")
    if used == implementations.REFERENCE:
        raise UserError("the CPU kernels do not run here; python -m nibble.info says why, and make kernels builds them")
    ours = f"linear_w4a8, {used}"
    found = []
    with torch_threads(1), torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for count in rows:
            of_shapes = [_time(ours, *shape, count, rounds, Path(folder)) for shape in SHAPES]
            for (terms, outputs), times in zip(SHAPES, of_shapes, strict=True):
                case = f"{_counted(count)}, {terms} to {outputs}"
                found += measurements("gemm", case, times, [(ours, _FLOAT)], threads=1)
            found += [_mean(ours, baseline, of_shapes, count) for baseline in of_shapes[0] if baseline != ours]
    return found


def _time(ours: str, terms: int, outputs: int, rows: int, rounds: int, folder: Path) -> dict[str, Times]:
    layer = nn.Linear(terms, outputs)
    x = torch.randn(rows, terms)
    contenders = {
        ours: _w4a8(layer, x),
        _FLOAT: lambda: layer(x),
        **{f"torch dynamic int8, {engine}": _torch_dynamic(layer, x, engine) for engine in _ENGINES},
        "ONNX Runtime dynamic int8": _onnx_dynamic(layer, x, folder),
        "ONNX Runtime MatMulNBits": _onnx_nbits(layer, x, folder),
    }
    return in_turns(contenders, rounds, f"{rows} x {terms} x {outputs}")


def _mean(ours: str, baseline: str, of_shapes: list[dict[str, Times]], rows: int) -> Measurement:
    """The geometric mean of the ratios of all shapes."""
    each = [measurements("gemm", "", times, [(ours, baseline)], threads=1)[0] for times in of_shapes]
    ratio = math.exp(math.fsum(math.log(one.ratio) for one in each) / len(each))
    case = f"{_counted(rows)}, mean of {len(each)} shapes"
    return replace(each[0], case=case, ratio=ratio, median_ms=None, wall_ms=None)


def _counted(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def _w4a8(layer: nn.Linear, x: Tensor) -> Layer:
    codes, scale, _ = quantize_weight(layer.weight, WeightSpec(4), "weight")
    packed, scales = pack_rows(codes), scale.view(-1)
    return lambda: ops.linear_w4a8(*ops.quantize_rows(x), packed, scales, layer.bias)


def _torch_dynamic(layer: nn.Linear, x: Tensor, engine: str) -> Layer:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear})[0]
    finally:
        torch.backends.quantized.engine = before
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
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError("gemm compares with ONNX Runtime; pip install -e .[export]") from error
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
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return lambda: session.run(None, given)

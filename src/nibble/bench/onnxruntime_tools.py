"""Writes float ONNX files and quantizes them with ONNX Runtime's own tools, at their fastest settings.

Protobuf holds 2 GB at most. A larger graph keeps its weights in a second file beside it, FILE.data.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from nibble.export.onnx.builder import MOST_BYTES, weight_bytes

BLOCK = 128  # in MatMulNBits: weights along K that share a scale


def written(graph: ModelProto, file: Path) -> None:
    """Write a graph; afterwards it may have lost its weights."""
    if weight_bytes(graph) <= MOST_BYTES:
        file.write_bytes(graph.SerializeToString())
        return
    _beside(file).unlink(missing_ok=True)  # it would be added to
    onnx.save_model(graph, str(file), save_as_external_data=True, location=_beside(file).name)


def size_bytes(file: Path) -> int:
    """Of a graph, with the file of its weights if there is one."""
    return sum(part.stat().st_size for part in (file, _beside(file)) if part.is_file())


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.data")


def prepared(float_file: Path) -> Path:
    """The file with constants folded: the tools quantize a product only if its weight is a constant of the file."""
    out = float_file.with_name(f"{float_file.stem}_prepared.onnx")
    large = _beside(float_file).is_file()
    with _quiet():
        quant_pre_process(
            str(float_file),
            str(out),
            skip_symbolic_shape=True,
            skip_onnx_shape=True,
            save_as_external_data=large,
            all_tensors_to_one_file=large,
            external_data_location=_beside(out).name if large else None,
        )
    return out


def int8_dynamic(prepared_file: Path) -> Path:
    """Products on int8 weights with a scale a channel; activations in uint8, quantized as they come.

    Convolutions stay in float: the tool's ConvInteger takes several times as long as the float convolution.
    """
    out = prepared_file.with_name("int8_dynamic.onnx")
    with _quiet():
        quantize_dynamic(
            str(prepared_file),
            str(out),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    return out


def four_bits(prepared_file: Path, integer_activations: bool) -> Path:
    """Products by MatMulNBits: weights of 4 bits; activations in float, or in int8 inside, which is faster."""
    level = 4 if integer_activations else 0
    out = prepared_file.with_name(f"four_bits_level_{level}.onnx")
    with _quiet():
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(prepared_file)), block_size=BLOCK, is_symmetric=True, accuracy_level=level
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(out))
    return out


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tools, which log every node that they skip."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

"""The options of `python -m nibble.export`."""

from dataclasses import dataclass
from enum import StrEnum

from nibble.errors import UserError
from nibble.quant.spec import QuantConfig
from nibble.ranges import Range, check


class Target(StrEnum):
    """The kind of an export."""

    bundle = "bundle"  # the smallest: what this project reads
    sherpa = "sherpa"  # ONNX files that sherpa-onnx loads as they are, and ONNX Runtime


class Encoding(StrEnum):
    """How an ONNX file holds weights, and what its products are of. `nibble.export.onnx.products` has the equations."""

    float = "float"  # 32 bits, float products
    w8a8 = "w8a8"  # 8-bit weights, 8-bit activations
    w4a8 = "w4a8"  # weights of up to 4 bits in 4 bits, 8-bit activations
    w4 = "w4"  # weights of up to 4 bits in 4 bits, float activations


@dataclass
class ExportConfig:
    """`python -m nibble.export`: exports a trained model."""

    checkpoint: str | None = None  # a run folder, a .ckpt or a bundle
    size: str | None = None  # of a run with model.sizes, the smaller network to take; null: the whole network
    target: Target = Target.sherpa
    encoding: Encoding | None = None  # null: w4a8 for weights of up to 4 bits, w8a8 for more, float for a float model
    # Of the ONNX file. With 21, weights of 4 bits load in half the memory, in sherpa-onnx from 1.12.20 (ONNX Runtime
    # from 1.23.2) on; older ones need 17. null: 21 for w4a8 and w4, else 17.
    opset: int | None = None
    quant: QuantConfig | None = None  # quantize a float checkpoint without training; null: as trained
    # How many labels sherpa-onnx, which emits one token a frame, can find in a frame of 40 ms. With 2, pairs of labels
    # are tokens. null: 2 for characters, which come that fast, from a model with predictor=stateless; else 1.
    labels_per_frame: int | None = None
    parity: bool = False  # compare each layer of the export with torch's, and print a table
    output: str | None = None  # null: in the run folder, named after what was chosen, such as sherpa_w4a8

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise UserError("give checkpoint=RUN: a run folder, a .ckpt file or a bundle")
        check(self, "", labels_per_frame=Range(1, 2))
        if self.opset not in (None, 17, 21):
            raise UserError(f"opset={self.opset}; give 21, or 17 for ONNX Runtime before 1.23.2, or null")
        if self.target is Target.bundle:
            for name in ("encoding", "opset", "labels_per_frame"):
                if (value := getattr(self, name)) is not None:
                    raise UserError(f"{name}={value} is for target=sherpa; leave it out with target=bundle")

"""Time and memory of an encoder on one thread in torch and ONNX Runtime: float, quantized by their tools, and ours."""

import copy
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nibble.bench.fresh import fresh_config, fresh_model, fresh_tokenizer
from nibble.bench.records import Measurement, with_footprints, with_sizes
from nibble.bench.timing import in_turns, measurements, torch_threads
from nibble.data.tokenizer import Tokenizer
from nibble.export.options import Encoding
from nibble.export.sherpa.graphs import EncoderGraph
from nibble.inference.footprint import Load, bundle_encoder, encoder_file, footprint
from nibble.inference.fused import fused_copy
from nibble.model.convolution import DepthwiseConv
from nibble.packages import need
from nibble.progress import track
from nibble.runs.bundle import write_bundle

MODEL = "conformer_l"
DURATION_S = 10
_FRAMES_A_SECOND = 100
_ROUNDS = 15

TORCH, TORCH_CONV1D, TORCH_INT8 = "torch float32", "torch float32, nn.Conv1d", "torch int8 dynamic"
ORT, ORT_INT8, ORT_INT4 = "ONNX Runtime float32", "ONNX Runtime int8 dynamic", "ONNX Runtime MatMulNBits, 4 bits"
ORT_W4 = "ONNX Runtime MatMulNBits, 4 bits, float activations"
W8A8, W4A8, W4 = (f"ours {encoding}, ONNX Runtime" for encoding in ("w8a8", "w4a8", "w4"))
OURS = "ours int4, torch"
PAIRS = [
    *((name, TORCH) for name in (TORCH_CONV1D, TORCH_INT8, ORT, ORT_INT8, ORT_INT4, ORT_W4, W8A8, W4A8, W4, OURS)),
    (OURS, TORCH_CONV1D),
    (ORT_INT8, ORT),
    *((ours, theirs) for ours in (W8A8, W4A8) for theirs in (ORT, ORT_INT8, ORT_INT4)),
    (W4, ORT_W4),
]


def measure(model: str = MODEL, duration_s: int = DURATION_S, rounds: int = _ROUNDS) -> list[Measurement]:
    """Every contender against torch's float32, and ours against each of ONNX Runtime's.

    Raises:
        UserError: a package that a contender needs is not installed.
    """
    for package, extra in (("onnx", "export"), ("onnxruntime", "export"), ("onnx_ir", "bench")):
        need(package, "python -m nibble.bench encoder", extra)
    from nibble.bench.onnxruntime_tools import size_bytes

    frames = duration_s * _FRAMES_A_SECOND
    mel_bins = fresh_config(model, "float").features.mel_bins
    features = torch.randn(1, frames, mel_bins, generator=torch.Generator().manual_seed(0))
    given = features, torch.tensor([frames])
    with tempfile.TemporaryDirectory() as temporary, torch_threads(1):
        folder = Path(temporary)
        tokenizer = fresh_tokenizer(folder)
        files = _files(model, tokenizer, folder)
        contenders: dict[str, Callable[[], object]] = {
            name: partial(network, *given) for name, network in _networks(model, tokenizer).items()
        }
        contenders |= {name: _in_onnxruntime(file, *given) for name, file in files.items()}
        # Networks are made before this block: a layer frozen inside it would cache nothing from one call to the next.
        with torch.inference_mode():
            times = in_turns(contenders, rounds, "timing encoders")
        sizes_bytes = {name: size_bytes(file) for name, file in files.items()}
        loads: dict[str, Load] = {name: partial(encoder_file, file, frames, mel_bins) for name, file in files.items()}
        loads |= {
            name: partial(bundle_encoder, bundle, frames) for name, bundle in _bundles(model, tokenizer, folder).items()
        }
        spent = {
            name: footprint(load, "nibble.inference.onnx_transducer", "nibble.runs.bundle")
            for name, load in track(loads.items(), "measuring memory", len(loads))
        }
    found = measurements("encoder", f"{model}, {duration_s} s", times, PAIRS, threads=1)
    return with_footprints(with_sizes(found, sizes_bytes), spent)


def _bundles(model: str, tokenizer: Tokenizer, folder: Path) -> dict[str, Path]:
    """What torch loads."""
    bundles = {name: folder / quant for name, quant in ((TORCH, "float"), (OURS, "int4"))}
    for bundle in bundles.values():
        write_bundle(fresh_model(model, bundle.name, tokenizer), bundle)
    return bundles


def _networks(model: str, tokenizer: Tokenizer) -> dict[str, nn.Module]:
    """What runs in torch."""
    floating = fresh_model(model, "float", tokenizer).model
    plain = copy.deepcopy(floating)
    for module in plain.modules():
        if isinstance(module, DepthwiseConv):
            module.__class__ = nn.Conv1d  # type: ignore[assignment]  # as it is written elsewhere
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it will move to another package
        int8 = torch.ao.quantization.quantize_dynamic(copy.deepcopy(floating), {nn.Linear})
    ours = fused_copy(fresh_model(model, "int4", tokenizer).model)
    networks = {TORCH: floating, TORCH_CONV1D: plain, TORCH_INT8: int8, OURS: ours}
    return {name: EncoderGraph(network).eval() for name, network in networks.items()}


def _files(model: str, tokenizer: Tokenizer, folder: Path) -> dict[str, Path]:
    """The files for ONNX Runtime: our exports, and the float one quantized by its own tools."""
    from nibble.bench.onnxruntime_tools import four_bits, int8_dynamic, prepared

    made: dict[str, Path] = {}
    steps: list[tuple[str, Callable[[], Path]]] = [
        (ORT, lambda: _exported(model, "float", Encoding.float, tokenizer, folder)),
        ("prepared", lambda: prepared(made[ORT])),
        (ORT_INT8, lambda: int8_dynamic(made["prepared"])),
        (ORT_INT4, lambda: four_bits(made["prepared"], integer_activations=True)),
        (ORT_W4, lambda: four_bits(made["prepared"], integer_activations=False)),
        (W8A8, lambda: _exported(model, "int8", Encoding.w8a8, tokenizer, folder)),
        (W4A8, lambda: _exported(model, "int4", Encoding.w4a8, tokenizer, folder)),
        (W4, lambda: _exported(model, "int4", Encoding.w4, tokenizer, folder)),
    ]
    for name, make in track(steps, "writing encoders", len(steps)):
        made[name] = make()
    del made["prepared"]
    return made


def _exported(model: str, quant: str, encoding: Encoding, tokenizer: Tokenizer, folder: Path) -> Path:
    from nibble.bench.onnxruntime_tools import written
    from nibble.export.onnx.graphs import export_graphs

    file = folder / f"{encoding.value}.onnx"
    written(export_graphs(fresh_model(model, quant, tokenizer), encoding)["encoder"].model, file)
    return file


def _in_onnxruntime(file: Path, features: Tensor, lengths: Tensor) -> Callable[[], object]:
    from nibble.inference.onnx_session import session

    run = session(file, threads=1).run
    return partial(run, None, {"x": features.numpy(), "x_lens": lengths.numpy()})

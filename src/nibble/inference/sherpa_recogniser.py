"""Opens an exported folder in sherpa-onnx."""

from pathlib import Path
from typing import Any


def sherpa_recogniser(folder: Path, streams: bool, threads: int, **options: Any) -> Any:
    """An OnlineRecognizer if the model streams, else an OfflineRecognizer.

    Args:
        folder: written by `python -m nibble.export`.
        streams: whether the model does.
        threads: of each product.
        options: further ones of `from_transducer`.
    """
    import sherpa_onnx

    kind: Any = sherpa_onnx.OnlineRecognizer if streams else sherpa_onnx.OfflineRecognizer
    files = {name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")}
    return kind.from_transducer(**files, tokens=str(folder / "tokens.txt"), num_threads=threads, **options)

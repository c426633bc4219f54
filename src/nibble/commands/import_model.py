"""Import another toolkit's checkpoint as a float run, without training.

python -m nibble.import parakeet.nemo runs/parakeet
python -m nibble.import parakeet-rnnt-0.6b/ runs/parakeet data=librispeech
python -m nibble.import icefall-asr-librispeech-transducer-stateless2/ runs/icefall data.corpus_dir=/speech/LibriSpeech

A .nemo file, a folder of Hugging Face Parakeet RNN-T, an icefall folder of transducer_stateless, or an ESPnet package.
Options of the speech are kept in the run, so that evaluation finds it. After that, everything works as for a model
trained here.
"""

import argparse
import sys
from pathlib import Path

from nibble import stopping
from nibble.errors import UserError


def import_model(path: Path, folder: Path, words: list[str]) -> Path:
    """Write the checkpoint at `path` as a run in `folder`, say what it is and what to type next; its checkpoint.

    Args:
        path: of the other toolkit.
        folder: of the run.
        words: options of a training run, "data.corpus_dir=DIR" and so on.

    Raises:
        UserError: the checkpoint cannot be imported, an option is wrong, or nothing can be written there.
    """
    from nibble.composition import training_config
    from nibble.imports.recognition import read_foreign
    from nibble.imports.run import write_run

    if wrong := next((word for word in words if word.lstrip("+").startswith(("model", "features"))), None):
        raise UserError(f"{wrong}: the checkpoint says model and features; leave them out")
    foreign = read_foreign(path)
    labels = "no labels" if foreign.tokenizer is None else f"{foreign.tokenizer.size} labels"
    print(f"{path} is {foreign.named}, {labels}, features {foreign.features.kind.value}")
    file = write_run(foreign, training_config([*words, f"run_dir={folder}"]), folder)
    print(f"{file}: {file.stat().st_size:,} bytes in float32; {foreign.origin}")
    print(f"python evaluate.py checkpoint={folder}")
    print(f"python -m nibble.quantize checkpoint={folder} quant=int4 rounding=gptq")
    print(f"python train.py init_from={folder} quant=int4 schedule=fine_tune")
    return file


def main(arguments: list[str] | None = None) -> int:
    """Import, and print errors without a traceback.

    Returns:
        0, or 1 if the checkpoint cannot be imported.
    """
    parser = argparse.ArgumentParser(
        prog="python -m nibble.import", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="a .nemo file, a folder of Parakeet or icefall, or an ESPnet package")
    parser.add_argument("folder", type=Path, help="of the new run")
    parser.add_argument("options", nargs="*", metavar="option=value", help="of the speech, as train.py takes them")
    given = parser.parse_args(arguments)
    try:
        import_model(given.path, given.folder, given.options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run() -> None:
    """Run the command, and end the process."""
    stopping.run(main)

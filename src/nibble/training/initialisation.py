"""Starts a run from the weights of another run or toolkit."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.imports.recognition import is_foreign, read_foreign
from nibble.model.nested import start_size_norms
from nibble.model.transducer import Transducer
from nibble.quant.low_rank import factorize
from nibble.quant.spec import LowRank
from nibble.runs.checkpoint import load_checkpoint

_OF_LABELS = ("predictor.embedding.weight", "joiner.output.weight", "joiner.output.bias")  # a row for each label


class Start(NamedTuple):
    """The history of the weights that a run starts from."""

    said: str | None  # a line for the user
    steps: int  # of training before; 0 for another toolkit, which does not say
    heard_s: float  # speech trained on before


def kept_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of the checkpoint at `path`: of a run, a bundle or another toolkit.

    Raises:
        UserError: there is no checkpoint, or it cannot be read.
    """
    if not is_foreign(path):
        return load_checkpoint(path).tokenizer
    foreign = read_foreign(path)
    if foreign.tokenizer is None:
        raise UserError(f"data.tokens=kept: init_from={path} has no labels; give data.tokens=char, or bpe")
    return foreign.tokenizer


def load_weights(model: Transducer, path: Path, low_rank: list[LowRank], tokenizer: Tokenizer) -> Start:
    """Copy the weights of the checkpoint at `path` into `model`, which must have the same parameters.

    Factors come from a checkpoint with the same `low_rank`; one without any gives full weights, to be factorized. Of an
    import with another tokenizer, the rows of the labels that both have are copied, and the others stay as they are.
    Of an encoder without labels, all else stays as it is.

    Args:
        model: the transducer, with fresh weights.
        path: of a run, a bundle or another toolkit.
        low_rank: of this run.
        tokenizer: of this run.

    Raises:
        UserError: the checkpoint is of another model; the text names the first difference.
    """
    if is_foreign(path):
        foreign = read_foreign(path)
        source, theirs, imported = foreign.weights(), foreign.tokenizer, True
        steps, heard_s = 0, 0.0
    else:
        loaded = load_checkpoint(path)
        factors = loaded.config.quant.low_rank
        if factors:
            if factors != low_rank:
                raise UserError(
                    f"init_from={path} is factorized by quant.low_rank={factors}, and this run has {low_rank}; "
                    "give this run the same, or a checkpoint of full rank"
                )
            factorize(model, factors)
        source, theirs = dict(loaded.model.state_dict()), loaded.tokenizer
        imported = loaded.config.origin is not None
        steps, heard_s = loaded.step, loaded.heard_s or 0.0
    target = {name: tensor for name, tensor in model.state_dict().items() if ".size_norms." not in name}
    said = None
    if theirs is None:
        source |= {name: tensor for name, tensor in target.items() if not name.startswith("encoder.")}
        said = "init_from has the encoder alone; what comes after it starts fresh"
    elif imported and _pieces(theirs) != _pieces(tokenizer):
        said = _with_shared_rows(source, target, theirs, tokenizer)
    for name, tensor in target.items():
        if name not in source or source[name].shape != tensor.shape:
            found = tuple(source[name].shape) if name in source else "absent"
            raise UserError(
                f"init_from={path}: {name} is {found} there and {tuple(tensor.shape)} here. "
                "Use the same model=, data.tokens and data.vocabulary_size"
            )
    taken = {name: source[name] for name in target}  # without what only quantization uses
    model.load_state_dict({**model.state_dict(), **taken})
    start_size_norms(model)
    return Start(said, steps, heard_s)


def _with_shared_rows(source: dict[str, Tensor], target: dict[str, Tensor], theirs: Tokenizer, ours: Tokenizer) -> str:
    """Replace the rows of the checkpoint's labels in `source` by rows for this run's; returns a line for the user."""
    places = {piece: label for label, piece in enumerate(_pieces(theirs))}
    pairs = [(label, places[piece]) for label, piece in enumerate(_pieces(ours)) if piece in places]
    own, other = torch.tensor(pairs).unbind(1)
    for name in _OF_LABELS:
        rows = target[name].clone()
        rows[own] = source[name][other]
        rows[ours.size :] = source[name][theirs.size :]  # of durations, behind those of labels
        source[name] = rows
    return (
        f"{len(pairs)} of {ours.size} labels are in the tokenizer of init_from too and keep their weights; "
        f"{ours.size - len(pairs)} are new"
    )


def _pieces(tokenizer: Tokenizer) -> list[str]:
    """By label; blank and unknown under the names that all tokenizers here give them."""
    return tokenizer.pieces(range(tokenizer.size))

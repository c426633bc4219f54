"""Small SentencePiece models as other toolkits make them, and checks that all imports share."""

import io
from pathlib import Path

import sentencepiece
import torch

from nibble.imports.importer import Foreign
from nibble.model.transducer import Transducer

WORDS = ["UP", "DOWN", "LEFT", "RIGHT", "GO", "STOP", "YES", "NO", "ON", "OFF", "ONE TWO THREE", "STOPPED GOING RIGHT"]


def sentencepiece_model(pieces: int, **options: object) -> bytes:
    """Byte pairs learnt from a few words; unknown is 0 and there is no padding, as in NeMo, unless the options say."""
    model = io.BytesIO()
    given = {"unk_id": 0, "bos_id": -1, "eos_id": -1, "pad_id": -1, "minloglevel": 2, "model_type": "bpe"} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 4), model_writer=model, vocab_size=pieces, **given
    )
    return model.getvalue()


def as_transducer(foreign: Foreign) -> Transducer:
    """Our network with the weights of the import."""
    model = Transducer(foreign.model, foreign.features, foreign.tokenizer.size)
    model.load_state_dict(foreign.weights())
    return model.eval()


def features_of(frames: list[int], bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features (B, T, F), zero in padding, and their lengths (B,)."""
    random = torch.Generator().manual_seed(0)
    features = torch.zeros(len(frames), max(frames), bins)
    for row, count in enumerate(frames):
        features[row, :count] = torch.randn(count, bins, generator=random)
    return features, torch.tensor(frames)


def greedy_ids(logits_of, frames: int, blank: int, most: int = 5) -> list[int]:
    """Greedy search by definition: logits_of(frame, labels so far) -> logits (V,), in the toolkit's own labels."""
    labels: list[int] = []
    for frame in range(frames):
        for _ in range(most):
            label = int(logits_of(frame, labels).argmax())
            if label == blank:
                break
            labels.append(label)
    return labels


def write_tokens(folder: Path, pieces: list[str]) -> None:
    lines = [f"{piece} {number}\n" for number, piece in enumerate(pieces)]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")

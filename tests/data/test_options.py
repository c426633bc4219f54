"""Options of speech that Hydra has to understand as they are typed."""

import pytest

from nibble import composition
from nibble.data.options import TextCase, named_columns
from nibble.errors import UserError


def test_options_of_sources_are_understood_as_typed() -> None:
    words = ["data.columns=[audio:wav,text:said]", "data.train_parts=[/a/b.jsonl]"]
    words += ["data.channel=1", "data.text_case=lower"]
    data = composition.training_config([*words, "run_dir=x"]).data
    assert named_columns(data.columns) == {"audio": "wav", "text": "said"}
    assert (data.train_parts, data.channel, data.text_case) == (["/a/b.jsonl"], "1", TextCase.lower)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.channel=left", r"data\.channel=left; give mix, or the number of a channel"),
        ("data.columns=[wav]", r"data\.columns has 'wav'; give \[audio:COLUMN,text:COLUMN\]"),
        ("data.byte_fallback=true", r"data\.byte_fallback=true is for data\.tokens=bpe"),
    ],
)
def test_what_they_refuse(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        composition.training_config([word, "run_dir=x"])

"""The text of `backend` in a record, taken apart and put together."""

from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.evaluation.options import Backend
from nibble.runs.backend import Inference
from nibble.runs.method import Method
from nibble.runs.records import read

PUBLISHED = Path(__file__).parents[2] / "results" / "records.jsonl"


@pytest.mark.parametrize(
    ("text", "inference"),
    [
        ("native greedy", Inference(Backend.torch, "native")),
        ("float beam8", Inference(Backend.torch, "float", 8)),
        ("bundle native greedy", Inference(Backend.bundle, "native")),
        ("onnx w4a8 beam12", Inference(Backend.onnx, "w4a8", 12)),
        ("sherpa 1.10.46 w8a8 greedy", Inference(Backend.sherpa, "w8a8", None, "1.10.46")),
    ],
)
def test_there_and_back(text: str, inference: Inference) -> None:
    assert Inference.parse(text) == inference
    assert str(inference) == text


def test_every_published_record_is_taken_apart() -> None:
    texts = {record.backend for record in read(PUBLISHED)}
    assert len(texts) > 10
    assert {str(Inference.parse(text)) for text in texts} == texts


@pytest.mark.parametrize("text", ["", "native", "native beam0", "greedy native", "native beam1000000000"])
def test_what_does_not_end_with_a_search(text: str) -> None:
    with pytest.raises(UserError, match="it must end with the search: greedy or beam8"):
        Inference.parse(text)


def test_a_method_is_its_value_and_tells_rows_apart() -> None:
    assert Method("gptq") is Method.gptq
    assert Method.gptq == "gptq"
    assert [method.value for method in Method if not method.is_trained] == ["ptq", "gptq"]
    assert len({method.label for method in Method}) == len(Method)
    with pytest.raises(ValueError, match="magic"):
        Method("magic")

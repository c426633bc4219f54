"""The methods by which weights are quantized, as records, cards and tables name them."""

from enum import StrEnum


class Method(StrEnum):
    """The method by which weights were quantized.

    Attributes:
        label: the text in a row of a table; empty for float.
        short: the text in one cell that distinguishes it from plain training or rounding; empty for these.
        sentence: the text on a model card.
    """

    label: str
    short: str
    sentence: str

    float = "float", "", "", "not quantized"
    ptq = "ptq", "not trained", "", "rounded without training"
    gptq = "gptq", "not trained, GPTQ", "GPTQ", "rounded without training, by GPTQ"
    qat = "qat", "trained", "", "trained at this precision"
    distilled = "distilled", "distilled", "distilled", "trained at this precision, with a float teacher"
    shared = "shared", "one run for several precisions", "shared", "trained together with other precisions"

    def __new__(cls, value: str, label: str = "", short: str = "", sentence: str = "") -> "Method":
        """A member whose value is the name, with its label."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.label, member.short, member.sentence = label, short, sentence
        return member

    @property
    def is_trained(self) -> bool:
        """Whether the weights were trained at this precision; otherwise float weights were rounded."""
        return self not in (Method.ptq, Method.gptq)

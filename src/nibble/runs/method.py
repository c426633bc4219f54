"""How weights came to their precision; records, cards and tables say it."""

from enum import StrEnum


class Method(StrEnum):
    """How weights came to their precision.

    Attributes:
        label: what a row of a table says; empty where there is nothing to say.
        short: what tells it, in one cell, from the plain way to train or not to train; empty for that.
        sentence: what a model card says.
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
        """Whether the weights were trained at this precision; else they are a float run's, rounded."""
        return self not in (Method.ptq, Method.gptq)

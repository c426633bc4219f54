"""How weights came to their precision; records and cards say it."""

from enum import StrEnum


class Method(StrEnum):
    """How weights came to their precision."""

    float = "float"  # not quantized
    ptq = "ptq"  # a float model's, rounded
    gptq = "gptq"  # a float model's, rounded by GPTQ
    qat = "qat"  # trained at it
    distilled = "distilled"  # trained at it, with a float teacher
    shared = "shared"  # trained at it and others in one run

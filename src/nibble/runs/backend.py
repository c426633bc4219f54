"""Parses `backend` of a record: the engine, its arithmetic and the search of an evaluation."""

import re
from dataclasses import dataclass

from nibble.errors import UserError
from nibble.evaluation.options import Backend, Search


@dataclass(frozen=True)
class Inference:
    """Engine, arithmetic and search. As text: "native greedy", "bundle native beam8", "sherpa 1.12.20 w4a8 greedy"."""

    backend: Backend
    arithmetic: str  # float, fake or native; of an export, its encoding
    beam_width: int | None = None  # null: greedy search
    version: str = ""  # of sherpa-onnx

    def __str__(self) -> str:
        engine = "" if self.backend is Backend.torch else self.backend.value
        return " ".join(filter(None, [engine, self.version, self.arithmetic, self.search]))

    @property
    def search(self) -> str:
        """greedy, beam8 and so on."""
        return Search.greedy.value if self.beam_width is None else f"{Search.beam.value}{self.beam_width}"

    @classmethod
    def parse(cls, text: str) -> "Inference":
        """The inverse of `str`.

        Raises:
            UserError: it does not end with a search.
        """
        found = re.fullmatch(r"(?:(bundle|onnx|sherpa)\b ?)?(?:(\d[\w.]*) )?(.*?) ?\b(greedy|beam([1-9]\d{0,5}))", text)
        if found is None:
            raise UserError(f"backend is {text!r:.60}; it must end with the search: greedy or beam8")
        engine, version, arithmetic, _, width = found.groups()
        return cls(Backend(engine or "torch"), arithmetic, int(width) if width else None, version or "")

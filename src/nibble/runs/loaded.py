"""A trained transducer with everything needed to use it, from a checkpoint or a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nibble.config import Config
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.model.transducer import Transducer
from nibble.quant.convert import prepare
from nibble.quant.low_rank import factorize
from nibble.quant.norm_statistics import separate
from nibble.quant.spec import Precision
from nibble.runs.method import Method
from nibble.shapes import shapes_only


@dataclass
class Loaded:
    """What a file held."""

    path: Path  # of the file or bundle
    config: Config  # of the run that made it
    tokenizer: Tokenizer
    model: Transducer  # in eval mode, at `precision`
    precision: Precision
    corpus: str  # trained on; as in records
    step: int  # optimizer steps done, those of the runs that it began from included
    method: Method
    frozen: bool  # a bundle's integer weights: they cannot be trained or quantized otherwise
    heard_s: float | None = None  # speech trained on, each pass counted; None if its file does not say
    sizes: list[str] = field(default_factory=list)  # smaller networks that its file holds too: `size=` takes one out

    @property
    def quant(self) -> str:
        """The name of the weights' precision: that of the run's rules, or float, int8 and so on."""
        return quant_name(self.config, self.precision)

    @property
    def notes(self) -> dict[str, Any]:
        """Notes on the weights, for the bundle's card."""
        return {
            "precision": self.precision.value,
            "method": self.method,
            "corpus": self.corpus,
            "step": self.step,
            "heard_s": self.heard_s,
        }


def quant_name(config: Config, precision: Precision) -> str:
    """The name that records give to the weights of a run at `precision`."""
    if precision is Precision.rules:
        return config.quant.name
    return precision.value + ("_lowrank" if config.quant.low_rank else "")


def float_model(config: Config, vocabulary_size: int) -> Transducer:
    """The network of a run in float, in factors where its rules say so, with fresh weights."""
    model = Transducer(config.model, config.features, vocabulary_size)
    if config.quant.low_rank:
        factorize(model, config.quant.low_rank)
    return model


def prepared_model(config: Config, vocabulary_size: int) -> Transducer:
    """The network of a run as training prepares it: quantized types, and batch norms for each of its precisions."""
    model = Transducer(config.model, config.features, vocabulary_size)
    prepare(model, config.quant)
    separate(model, config.schedule.together)
    return model


def float_parameters(config: Config, vocabulary_size: int) -> int:
    """How many parameters the transducer of a run has in float, without parts that exist in training only."""
    with shapes_only():
        model = Transducer(config.model, config.features, vocabulary_size)
    return sum(parameter.numel() for parameter in model.parameters())


def check_sizes(where: Path, config: Config, tensors: int, held_bytes: int) -> None:
    """Raise `UserError` if a network is larger than its file: no size of it has more elements than the file has bytes.

    Args:
        where: the file that holds the configuration, for messages.
        config: of the network.
        tensors: how many the file with the weights holds; each layer has some.
        held_bytes: of that file.
    """
    sizes = {f"model.{name}": size for name, size in vars(config.model).items() if isinstance(size, int | float)}
    for name, size in {**sizes, "features.mel_bins": config.features.mel_bins}.items():
        if size > (tensors if name == "model.layers" else held_bytes):
            raise UserError(
                f"{where}: {name}={size} is more than {tensors} tensors in {held_bytes} bytes can be of; copy it again"
            )


def check_state(path: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Raise `UserError` unless `state` has exactly the names and shapes of `model`."""
    compare(path, *({name: tuple(tensor.shape) for name, tensor in of.items()} for of in (model.state_dict(), state)))


def compare(path: Path, expected: Mapping[str, object], found: Mapping[str, object]) -> None:
    """Raise `UserError` unless both have the same names, and for each the same shape, or type and shape."""
    if expected == found:
        return
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = [name for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]]
    parts = []
    if missing:
        parts.append(f"{len(missing)} weights are missing, such as {missing[0]}")
    if surplus:
        parts.append(f"{len(surplus)} are unknown, such as {surplus[0]}")
    if other:
        name = other[0]
        parts.append(f"{len(other)} have another shape or type, such as {name}: {found[name]} not {expected[name]}")
    raise UserError(f"{path} holds the weights of another model: {'; '.join(parts)}")

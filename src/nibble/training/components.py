"""Builds the callbacks, loggers and metrics that a configuration names with `_target_`, as lightning-hydra-template
does.

conf/callbacks/timer.yaml, chosen with callbacks=timer:

    timer:                                              any name
      _target_: pytorch_lightning.callbacks.Timer       the class, where Python imports it from
      duration: "00:12:00:00"                           its arguments

A configuration may come from a checkpoint that somebody else wrote. So only a class of the kind that is asked for is
ever called, and bundles do not keep these options.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from hydra.utils import get_class

from nibble.errors import UserError

Kind = TypeVar("Kind")
_TARGET = "_target_"


def build(kind: type[Kind], option: str, choices: Mapping[str, Any]) -> dict[str, Kind]:
    """An object for each entry of an option, by its name.

    Args:
        kind: what each must be, such as Lightning's `Callback`.
        option: its name, for messages.
        choices: name -> `_target_` and arguments.

    Raises:
        UserError: there is no such class, it is of another kind, or it does not take these arguments.
    """
    built = {}
    for name, of in classes(kind, option, choices).items():
        arguments = {key: value for key, value in choices[name].items() if key != _TARGET}
        try:
            built[name] = of(**arguments)
        except (TypeError, ValueError, ModuleNotFoundError) as error:
            raise UserError(f"{option}.{name}: {of.__name__} cannot be made with {arguments}: {error}") from error
    return built


def classes(kind: type[Kind], option: str, choices: Mapping[str, Any]) -> dict[str, type[Kind]]:
    """The class of each entry; nothing is built yet.

    Raises:
        UserError: an entry has no `_target_`, there is no such class, or it is of another kind.
    """
    found = {}
    for name, entry in choices.items():
        target = entry.get(_TARGET) if isinstance(entry, Mapping) else None
        if not isinstance(target, str):
            raise UserError(f"{option}.{name} has no {_TARGET}; give the class, such as {option}.{name}.{_TARGET}=a.B")
        try:
            of = get_class(target)
        except Exception as error:  # of hydra, and whatever importing a module raises
            raise UserError(f"{option}.{name}.{_TARGET}={target} cannot be imported: {error}") from error
        if not issubclass(of, kind):
            raise UserError(f"{option}.{name}.{_TARGET}={target} is no {kind.__module__}.{kind.__name__}")
        found[name] = of
    return found

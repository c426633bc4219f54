"""Create the W&B dashboard of a project, or write its definition to a file.

python -m nibble.dashboard ENTITY/PROJECT
python -m nibble.dashboard output=FILE
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.errors import UserError
from nibble.wandb_key import check_wandb_key
from nibble.writing import write_text

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def send(name: str) -> str:
    """Make the dashboard of the project `ENTITY/PROJECT`, and return its address.

    Raises:
        UserError: `name` is not ENTITY/PROJECT, there is no key or no package, or W&B refuses.
    """
    entity, slash, project = name.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise UserError(f"{name} is not a project; give ENTITY/PROJECT, as in the address of its page at wandb.ai")
    dashboard = _workspace(entity, project)
    check_wandb_key("a dashboard")
    import wandb

    try:
        return str(dashboard.save().url)
    except (wandb.Error, ValueError) as error:
        raise UserError(f"W&B does not take the dashboard of {name}: {error}") from error


def write(path: Path) -> None:
    """Write the definition, the same for every project, as the JSON that W&B would be sent; needs no key.

    Raises:
        UserError: there is no package, or `path` cannot be written.
    """
    definition = _workspace("ENTITY", "PROJECT")._spec["spec"]  # the package has no public way to it
    write_text(path, json.dumps(definition, indent=1) + "\n", "give another output=FILE")


def _workspace(entity: str, project: str) -> "Workspace":
    try:
        from nibble.dashboard.layout import workspace
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: pip install -e .[dashboard]") from error
    return workspace(entity, project)


@dataclass
class DashboardOptions:
    """The options of `python -m nibble.dashboard`."""

    project: list[str] = field(default_factory=list, metadata=BARE)  # ENTITY/PROJECT; PROJECT is logger.wandb_project
    output: str | None = None  # file to write the definition to, as JSON; it needs no key

    def __post_init__(self) -> None:
        if len(self.project) + (self.output is not None) != 1:
            raise UserError("give ENTITY/PROJECT, or output=FILE: python -m nibble.dashboard ENTITY/PROJECT")


def main(words: Sequence[str] | None = None) -> int:
    """Send it or write it, and print where it is; returns 0, or 1 if neither can be done."""
    return run_words(_lay_out, DashboardOptions, __doc__, words)


def _lay_out(options: DashboardOptions) -> None:
    if options.output is None:
        print(send(options.project[0]))
    else:
        write(Path(options.output))
        print(options.output)


def run() -> None:
    """Run the command line."""
    stopping.run(main)

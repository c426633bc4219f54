"""Lays out the W&B dashboard of a project, or writes what W&B would be sent.

python -m nibble.dashboard ENTITY/PROJECT
python -m nibble.dashboard --output FILE
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nibble import stopping
from nibble.errors import UserError
from nibble.wandb_key import check_wandb_key
from nibble.writing import write_text

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def send(name: str) -> str:
    """Make the dashboard of the project `ENTITY/PROJECT`, and return its address.

    Raises:
        UserError: the name is none, there is no key or no package, or W&B refuses.
    """
    entity, slash, project = name.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise UserError(f"{name} is no project; give ENTITY/PROJECT, as in the address of its page at wandb.ai")
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
    write_text(path, json.dumps(definition, indent=1) + "\n", "give another --output FILE")


def _workspace(entity: str, project: str) -> "Workspace":
    try:
        from nibble.dashboard.layout import workspace
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: pip install -e .[dashboard]") from error
    return workspace(entity, project)


def main(arguments: Sequence[str] | None = None) -> None:
    """Send it or write it, and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.dashboard", description="Lay out the W&B dashboard of a project."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "project", nargs="?", metavar="ENTITY/PROJECT", help="the account or team, and logger.wandb_project"
    )
    where.add_argument("--output", type=Path, metavar="FILE", help="write the definition there, as JSON; needs no key")
    options = parser.parse_args(arguments)
    try:
        if options.output is None:
            print(send(options.project))
        else:
            write(options.output)
            print(options.output)
    except UserError as error:
        sys.exit(f"error: {error}")


def run() -> None:
    """Run the command line."""
    stopping.run(main)

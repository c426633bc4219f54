"""Lays out the W&B dashboard of a project.

python -m nibble.dashboard ENTITY/PROJECT
"""

import argparse
import sys
from collections.abc import Sequence

from nibble.errors import UserError
from nibble.wandb_key import check_wandb_key


def send(name: str) -> str:
    """Make the dashboard of the project `ENTITY/PROJECT`, and return its address.

    Raises:
        UserError: the name is none, there is no key or no package, or W&B refuses.
    """
    entity, slash, project = name.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise UserError(f"{name} is no project; give ENTITY/PROJECT, as in the address of its page at wandb.ai")
    try:
        import wandb

        from nibble.dashboard.layout import workspace
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: pip install -e .[dashboard]") from error
    check_wandb_key("a dashboard")
    try:
        return str(workspace(entity, project).save().url)
    except (wandb.Error, ValueError) as error:
        raise UserError(f"W&B does not take the dashboard of {name}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Send it and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.dashboard", description="Lay out the W&B dashboard of a project."
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="the account or team, and logger.wandb_project")
    try:
        print(send(parser.parse_args(arguments).project))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Checks that there is a key of W&B on this machine."""

import os
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from nibble.errors import UserError


def check_wandb_key(what: str) -> None:
    """Raise `UserError` unless W&B has a key, which `what` needs.

    Raises:
        UserError: there is none, neither in WANDB_API_KEY nor in the file where `wandb login` puts it.
    """
    if os.environ.get("WANDB_API_KEY"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        found = file.is_file() and netrc(file).authenticators(host)
    except NetrcParseError as error:
        raise UserError(f"{file} cannot be read: {error}; mend it, or set WANDB_API_KEY") from error
    if not found:
        raise UserError(f"{what} needs a key of {host}: run `wandb login`, or set WANDB_API_KEY")

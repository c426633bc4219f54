"""Checks that optional packages are installed."""

from importlib.util import find_spec

from nibble.errors import UserError


def need(package: str, purpose: str, extra: str = "export") -> None:
    """Raise `UserError` unless `package`, as it is imported, is installed."""
    if find_spec(package) is None:
        raise UserError(f"{purpose} needs {package.replace('_', '-')}: pip install -e '.[{extra}]'")

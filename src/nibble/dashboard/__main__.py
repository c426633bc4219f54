"""python -m nibble.dashboard: see `nibble.commands.dashboard`."""

from nibble.commands.dashboard import run

if __name__ == "__main__":
    run()

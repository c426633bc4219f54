"""python -m nibble.data.check: see `nibble.commands.check`."""

from nibble.commands.check import run

if __name__ == "__main__":
    run()

"""python -m nibble.sensitivity: see `nibble.commands.sensitivity`."""

from nibble.commands.sensitivity import run

if __name__ == "__main__":
    run()

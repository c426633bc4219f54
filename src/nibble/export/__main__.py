"""python -m nibble.export: see `nibble.commands.export`."""

from nibble.commands.export import run

if __name__ == "__main__":
    run()

"""python -m nibble.import: see `nibble.commands.import_model`."""

from nibble.commands.import_model import run

if __name__ == "__main__":
    run()

"""python -m nibble.info: see `nibble.commands.info`."""

from nibble.commands.info import run

if __name__ == "__main__":
    run()

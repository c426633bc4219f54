"""python -m nibble.data.shar: see `nibble.commands.shar`."""

from nibble.commands.shar import run

if __name__ == "__main__":
    run()

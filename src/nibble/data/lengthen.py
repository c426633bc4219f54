"""python -m nibble.data.lengthen: see `nibble.commands.lengthen`."""

from nibble.commands.lengthen import run

if __name__ == "__main__":
    run()

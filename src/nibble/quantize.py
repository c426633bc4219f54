"""python -m nibble.quantize: see `nibble.commands.quantize`."""

from nibble.commands.quantize import run

if __name__ == "__main__":
    run()

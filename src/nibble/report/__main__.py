"""python -m nibble.report: see `nibble.commands.report`."""

from nibble.commands.report import run

if __name__ == "__main__":
    run()

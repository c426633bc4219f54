"""python -m nibble.transcribe: see `nibble.commands.transcribe`."""

from nibble.commands.transcribe import run

if __name__ == "__main__":
    run()

"""python -m nibble.data.speaker_folds: see `nibble.commands.speaker_folds`."""

from nibble.commands.speaker_folds import run

if __name__ == "__main__":
    run()

"""Conventions of all rooms: the sample rate, the blank label and the mark of a word's first piece."""

SAMPLE_RATE_HZ = 16_000  # of all speech once it is read: one channel, float32 in [-1, 1]
BLANK = 0  # the label that a transducer emits to go on to the next frame
WORD_START = "\u2581"  # with this sign SentencePiece begins a piece that begins a word

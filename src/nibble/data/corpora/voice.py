"""eSpeak NG reads sentences aloud: `python -m nibble.data.corpora.voice`, one process a voice, JSON in, samples out.

It is a process of its own because eSpeak NG is GPL, and because it carries state from one sentence to the next: only
a fresh process that speaks the same sentences in the same order makes the same samples.

stdin: `{"voice", "rate", "pitch", "sentences"}`. stdout, little-endian, for each sentence: the number of samples
(uint32) and the samples (int16, 22 050 a second).
"""

import ctypes
import json
import os
import struct
import sys

# speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2
RATE, PITCH = 1, 3
CHARACTERS_UTF8 = 1
ESPEAK_RATE_HZ = 22_050
SEED = 1  # of eSpeak's own noise source, which would else take the time of day

SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main() -> None:
    """Speak the sentences of stdin."""
    import espeakng_loader

    request = json.load(sys.stdin)
    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    # eSpeak keeps its data path in 160 bytes, so it gets a relative one.
    os.chdir(os.path.dirname(espeakng_loader.get_data_path()))
    rate_hz = espeak.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, b".", 0)
    if rate_hz != ESPEAK_RATE_HZ:
        sys.exit(f"eSpeak NG does not start (sample rate {rate_hz})")

    chunks: list[bytes] = []

    @SYNTH_CALLBACK
    def collect(samples, count, _events):  # type: ignore[no-untyped-def]
        if count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    espeak.espeak_SetSynthCallback(collect)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    if espeak.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        sys.exit(f"eSpeak NG has no voice {request['voice']}")
    espeak.espeak_SetParameter(RATE, request["rate"], 0)
    espeak.espeak_SetParameter(PITCH, request["pitch"], 0)

    for sentence in request["sentences"]:
        chunks.clear()
        text = sentence.encode()
        if espeak.espeak_Synth(text, len(text) + 1, 0, 0, 0, CHARACTERS_UTF8, None, None) != 0:
            sys.exit(f"eSpeak NG can't speak {sentence!r}")
        samples = b"".join(chunks)
        sys.stdout.buffer.write(struct.pack("<I", len(samples) // 2) + samples)


if __name__ == "__main__":
    main()

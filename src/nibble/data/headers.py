"""Finds WAV and MP3 files whose header contradicts their bytes, which libsndfile doesn't report."""

import os
import struct
from typing import BinaryIO

_STREAMED = 0x7FFF0000  # a size from here on stands for "until the end": a program wrote it that could not go back
_MAX_CHUNKS = 1_000
_MPEG_SYNC = 0xFFE0
_LEAST_SECOND_BYTES = 512  # more than the tags that programs leave at the end of an MP3


def broken_promise(file: BinaryIO) -> str:
    """Why an audio file holds more or less sound than would be read; empty if it doesn't. Leaves the position at 0."""
    file.seek(0, os.SEEK_END)
    size_bytes = file.tell()
    file.seek(0)
    start = file.read(12)
    try:
        if start[:4] == b"RIFF" and start[8:] == b"WAVE":
            return _wav(file, size_bytes)
        if start[:3] == b"ID3" or (len(start) > 2 and int.from_bytes(start[:2]) & _MPEG_SYNC == _MPEG_SYNC):
            return _mp3(file, size_bytes, start)
        return ""
    finally:
        file.seek(0)


def _wav(file: BinaryIO, size_bytes: int) -> str:
    """Compare the size of the data with that of the file."""
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return ""
        name, promised = struct.unpack("<4sI", head)
        left = size_bytes - file.tell()
        if name != b"data":
            file.seek(promised + promised % 2, os.SEEK_CUR)
        elif promised == 0 and left > 1:
            return f"its header says that it has no samples, and {left:,} bytes follow"
        elif left < promised < _STREAMED:
            return f"it is truncated: its header promises {promised:,} bytes of samples, and {left:,} are there"
        else:
            return ""
    return ""


def _mp3(file: BinaryIO, size_bytes: int, start: bytes) -> str:
    """Look for a second MP3 behind the bytes that the first frame of the first one promises."""
    begin = 0
    if start[:3] == b"ID3":  # seven bits a byte
        begin = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    file.seek(begin)
    frame = file.read(200)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or len(frame) < place + 16:
        return ""
    flags, _frames, promised = struct.unpack_from(">III", frame, place + 4)
    if flags & 3 != 3 or not 0 < promised < size_bytes - begin - _LEAST_SECOND_BYTES:
        return ""
    file.seek(begin + promised)
    behind = file.read(4)
    if behind[:3] == b"ID3" or int.from_bytes(behind[:2]) & _MPEG_SYNC == _MPEG_SYNC:
        return f"it is several MP3 files in one: the first ends after {promised:,} of {size_bytes:,} bytes"
    return ""

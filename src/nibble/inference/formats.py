"""Writes transcriptions as text, JSON, subtitles (SubRip, WebVTT) or NIST's CTM."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

from nibble.inference.transcription import Transcription
from nibble.model.decoding import Word

_CAPTION_LETTERS = 80  # two lines on a screen
_CAPTION_S = 6.0
_CAPTION_GAP_S = 1.0  # a pause at which the next caption begins


class Format(StrEnum):
    """The format of a written transcription."""

    txt = "txt"  # the text alone
    json = "json"  # a line with text, words and their times
    srt = "srt"  # subtitles, SubRip
    vtt = "vtt"  # subtitles, WebVTT
    ctm = "ctm"  # a line for each word, as NIST's scoring tools read it


def written(found: Transcription, file: Path, kind: Format) -> str:
    """The transcription of `file` in a format, ending with a newline unless it is empty."""
    return _WRITERS[kind](found, file)


def _txt(found: Transcription, _file: Path) -> str:
    return f"{found.text}\n"


def _json(found: Transcription, file: Path) -> str:
    words = [
        {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(word).items()}
        for word in found.words
    ]
    said = {"file": str(file), "duration_s": round(found.duration_s, 3), "text": found.text, "words": words}
    return json.dumps(said, ensure_ascii=False) + "\n"


def _srt(found: Transcription, _file: Path) -> str:
    return "".join(
        f"{number}\n{_clock(caption, ',')}\n{_text(caption)}\n\n"
        for number, caption in enumerate(captions(found.words), start=1)
    )


def _vtt(found: Transcription, _file: Path) -> str:
    captioned = (f"{_clock(caption, '.')}\n{_text(caption)}\n\n" for caption in captions(found.words))
    return "WEBVTT\n\n" + "".join(captioned).replace("&", "&amp;").replace("<", "&lt;")


def _ctm(found: Transcription, file: Path) -> str:
    name = "_".join(file.stem.split()) or "-"
    return "".join(f"{name} 1 {word.start_s:.2f} {word.end_s - word.start_s:.2f} {word.text}\n" for word in found.words)


_WRITERS: dict[Format, Callable[[Transcription, Path], str]] = {
    Format.txt: _txt,
    Format.json: _json,
    Format.srt: _srt,
    Format.vtt: _vtt,
    Format.ctm: _ctm,
}


def captions(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Group words into captions: short enough to be read, and ending where a speaker pauses."""
    caption: list[Word] = []
    for word in words:
        if caption:
            letters = len(_text([*caption, word]))
            lasts_s, gap_s = word.end_s - caption[0].start_s, word.start_s - caption[-1].end_s
            if letters > _CAPTION_LETTERS or lasts_s > _CAPTION_S or gap_s > _CAPTION_GAP_S:
                yield caption
                caption = []
        caption.append(word)
    if caption:
        yield caption


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _clock(words: Sequence[Word], point: str) -> str:
    """When the words are shown: 00:00:01,200 --> 00:00:03,000."""
    times = []
    for time_s in (words[0].start_s, words[-1].end_s):
        seconds, milliseconds = divmod(round(1000 * time_s), 1000)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        times.append(f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}")
    return " --> ".join(times)

"""Audio in files that libsndfile does not read (m4a, mp4, webm, wma and the like), decoded by FFmpeg through PyAV.

A file may say that its samples lie elsewhere, as playlists do. So it is given to FFmpeg as bytes with the name of its
container, which is never a playlist, and no protocol is allowed for anything that it names.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nibble.data.samples import MAX_CHANNEL_SAMPLES, as_numbers, check_rate, ffmpeg_line, loudest_if_cancelled
from nibble.errors import UserError

_CONTAINERS = {  # suffix -> FFmpeg's name of the container
    **dict.fromkeys((".m4a", ".mp4", ".mov", ".3gp"), "mov"),
    **dict.fromkeys((".webm", ".mkv", ".mka"), "matroska"),
    ".aac": "aac",
    ".wma": "asf",
    ".amr": "amr",
}


def decode(path: Path) -> tuple[NDArray[np.float32], int]:
    """Samples (samples, channels) in [-1, 1] of the first sound track, and their rate in Hz.

    Raises:
        UserError: PyAV is not installed, or the file has no sound that it decodes.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{path} needs PyAV: pip install -e .[media]; or convert it: {ffmpeg_line(str(path))}"
        ) from error
    try:
        with path.open("rb") as file:
            options = {"protocol_whitelist": "none"}
            with av.open(file, format=_CONTAINERS[path.suffix.lower()], options=options) as container:
                return _sound(container, path)
    except (OSError, ValueError, MemoryError, av.FFmpegError) as error:
        raise UserError(f"{path} is not audio that can be read: {error}; {ffmpeg_line(str(path))}") from error


def _sound(container: Any, path: Path) -> tuple[NDArray[np.float32], int]:
    if not container.streams.audio:
        raise UserError(f"{path} has no sound")
    track = container.streams.audio[0]
    rate_hz, channels = int(track.rate or 0), int(track.channels or 0)
    check_rate(str(path), rate_hz)
    pieces, total = [], 0
    for frame in container.decode(track):
        if (frame.sample_rate, frame.layout.nb_channels) != (rate_hz, channels):
            raise UserError(f"{path} changes its rate or channels in the middle; {ffmpeg_line(str(path))}")
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, channels).T
        pieces.append(as_numbers(samples).T)
        total += pieces[-1].size
        if total > MAX_CHANNEL_SAMPLES:
            raise UserError(f"{path} is longer than a file may be; cut it into shorter ones")
    if not pieces:
        raise UserError(f"{path} has a sound track without samples")
    return np.concatenate(pieces), rate_hz


def one_channel(samples: NDArray[np.float32], channel: str, name: str) -> tuple[NDArray[np.float32], str]:
    """One channel (samples,) of several (samples, channels), or their mean, and what was done, for messages."""
    channels = samples.shape[1]
    if channel == "mix":
        return loudest_if_cancelled(samples), f", {channels} channels" if channels > 1 else ""
    if int(channel) >= channels:
        raise UserError(f"{name} has {channels} channels, counted from 0, and no channel {channel}")
    return samples[:, int(channel)].copy(), f", channel {channel}"

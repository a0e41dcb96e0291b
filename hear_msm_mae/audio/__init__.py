"""Step 1: file -> waveform. Recordings of any format, rate and length, decoded to their true end.

`read` gives waveforms of files, `waveforms` those of audio in memory; `recognise` tells formats by
content; `decoders` opens files, with what `mpeg`, `ogg`, `flac` and `chunks` find in their bytes;
`channels` mixes.
"""

from .read import count_channels, read_audio, resample, stream_audio
from .recognise import AUDIO_SUFFIXES, find_audio, sniff
from .waveforms import waveform_of

__all__ = [
    "AUDIO_SUFFIXES",
    "count_channels",
    "find_audio",
    "read_audio",
    "resample",
    "sniff",
    "stream_audio",
    "waveform_of",
]

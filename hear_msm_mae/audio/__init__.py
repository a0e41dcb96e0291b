"""Step 1: file -> waveform. Recordings of any format, rate and length, decoded to their true end.

`read` reads files, and `waveforms` converts audio in memory. `recognise` finds the format of a file
by its content. `decoders` decodes files, by libsndfile or `pyav`; `ogg` and `chunks` correct what
their headers claim. `channels` mixes channels to mono.
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

"""Recognise audio files by their first bytes, not by their names."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import soundfile

from ..files import printable
from .window import Window

# Formats that PyAV reads and libsndfile does not.
_CONTAINERS = ("asf", "avi", "flv", "matroska", "mp4", "mpeg")
PYAV_FORMATS = frozenset((*_CONTAINERS, "aac", "ac3", "amr", "ape", "dsf", "dts", "tta", "wavpack"))

# Endings in addition to the names of libsndfile's formats. RAW is left out, because such a file
# does not contain its sample rate.
_MORE_ENDINGS = """
    3gp 8svx aac ac3 aif aifc amr ape avi bwf dsf dts flv iff m4a m4b mka mkv mov mp2 mp4 mpg oga
    opus sf snd sph tta wave webm wma wv
"""
AUDIO_SUFFIXES: frozenset[str] = frozenset(
    f".{name.lower()}" for name in (*soundfile.available_formats(), *_MORE_ENDINGS.split())
) - {".raw"}

_MAGIC = {
    b"caff": "caf",
    b".snd": "au",
    b"dns.": "au",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"Creative Voice File": "voc",
    b"NIST_1A": "nist",
    **{bytes((0x64, 0xA3, n, 0)): "ircam" for n in (1, 2, 3, 4)},
    **{bytes((0, n, 0xA3, 0x64)): "ircam" for n in (1, 2, 3, 4)},
    b" paf": "paf",
    b"fap ": "paf",
    b"PVF1": "pvf",
    b"2BIT": "avr",
    b"ALawSoundFile**": "wve",
    b"Extended Instrument: ": "xi",
    b"riff\x2e\x91\xcf\x11": "w64",
    b"\x1aE\xdf\xa3": "matroska",
    b"0&\xb2u\x8ef\xcf\x11": "asf",
    b"FLV\x01": "flv",
    b"MAC ": "ape",
    b"wvpk": "wavpack",
    b"TTA1": "tta",
    b"#!AMR": "amr",
    b"DSD ": "dsf",
    b"\x0b\x77": "ac3",
    b"\x7f\xfe\x80\x01": "dts",
    b"\0\0\1\xba": "mpeg",
}
# Formats by the bytes from 8 on, of files that begin with one of these.
_FORMS = {
    b"RIFF": {b"WAVE": "wav", b"AVI ": "avi"},
    b"RIFX": {b"WAVE": "rifx"},
    b"RF64": {b"WAVE": "rf64"},
    b"BW64": {b"WAVE": "rf64"},
    b"FORM": {b"AIFF": "aiff", b"AIFC": "aiff", b"8SVX": "svx", b"16SV": "svx"},
}
_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"crx ", b"jp2 ", b"jpx ")
# Formats without a magic number: what a frame begins with, and the length of the shortest and of
# the longest frame. MPEG layer I is left out, because UTF-16 text looks like it.
_FRAMES = {
    "mp3": (re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][\x10-\xef]"), 24, 1729),
    "aac": (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), 7, 8191),
}


def has_pyav() -> bool:
    """Whether PyAV is installed, which decodes formats that libsndfile does not."""
    try:
        return importlib.util.find_spec("av") is not None
    except ValueError:  # its import was made impossible
        return False


def sniff(path: str | Path) -> str | None:
    """The format of an audio file, by its first bytes.

    Returns:
        "wav", "flac", "ogg", "mp3", "mp4", "matroska" (also for WebM) ...; None if it is not audio
        or cannot be recognised. A video may have no sound.

    Raises:
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "noise.txt").write_bytes(b"fLaC and so on")
    ...     sniff(Path(folder, "noise.txt"))
    14
    'flac'
    """
    with Path(path).open("rb", buffering=4096) as file:
        data = Window(file)
        start = data.after_id3()
        head = data.at(start, 64)
        form = _FORMS.get(head[:4])
        if form is not None:
            return form.get(head[8:12])
        for magic, name in _MAGIC.items():
            if head.startswith(magic):
                return name
        if head[4:8] == b"ftyp":
            return None if head[8:12] in _PICTURES else "mp4"
        for name, (begin, shortest, longest) in _FRAMES.items():
            # All frames of a file have the same first two bytes.
            if begin.match(head) and data.at(start, longest + 2).find(head[:2], shortest) > 0:
                return name
        return "mp3" if start else None


def find_audio(
    paths: Iterable[str | Path],
    on_error: Callable[[OSError], None] | None = None,
    left_out: Callable[[Path, str | None], None] | None = None,
) -> list[Path]:
    """Find audio files: given files, and the audio files in given folders and their sub-folders.

    A file in a folder counts as audio if its first bytes are those of an audio format, or if its
    ending is in `AUDIO_SUFFIXES`. Hidden files and folders (a leading dot) are left out. Symbolic
    links are followed, and each folder is visited once.

    Args:
        paths: files and folders; a given file is always returned.
        on_error: called with the error of each folder or file that cannot be listed or read. By
            default these are left out.
        left_out: called for each other file in the folders: (path, reason) if no installed package
            decodes the format, (path, None) if it is not audio. By default the former are returned,
            so that reading them says what to install.

    Returns:
        Paths without repetition, in the order of the arguments, files of a folder sorted.

    Raises:
        FileNotFoundError: an argument does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.wav", "a.FLAC", ".hidden.wav", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in find_audio([folder])]
    ['a.FLAC', 'b.wav']
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for file in sorted(_walk(path, on_error)):
                if _is_wanted(file, on_error, left_out):
                    found[file] = None
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(f"no such file or folder: {printable(path)}")
    return list(found)


def _is_wanted(
    file: Path,
    on_error: Callable[[OSError], None] | None,
    left_out: Callable[[Path, str | None], None] | None,
) -> bool:
    is_file = file.is_file()
    # A pipe or device would be read without end, but reading a broken link says that it is broken.
    by_ending = file.suffix.lower() in AUDIO_SUFFIXES and (is_file or not file.exists())
    if by_ending and (left_out is None or has_pyav()):
        return True
    try:
        kind = sniff(file) if is_file else None
    except OSError as error:
        if by_ending:
            return True
        if on_error is not None:
            on_error(error)
        return False
    reason = None
    if kind in PYAV_FORMATS and not has_pyav():
        reason = f"format {kind} needs PyAV; run: pip install 'hear_msm_mae[formats]'"
    if left_out is None or (reason is None and (kind or by_ending)):
        return by_ending or kind is not None
    left_out(file, reason)
    return False


def _walk(folder: Path, on_error: Callable[[OSError], None] | None) -> Iterator[Path]:
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield Path(parent, name)

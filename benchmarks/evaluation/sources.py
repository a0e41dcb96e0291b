"""Audio that is kept for evaluation: Debian packages, fetched and unpacked into a cache folder.

Nothing is installed and no root is needed. Packages that `weights/corpus/excluded.csv` does not
keep for evaluation are refused, so neither the pretraining corpus nor the reserved packages can
get in here.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from weights.corpus import packages
from weights.corpus.packages import BuildError

DEFAULT_CACHE = Path("~/.cache/hear_msm_mae/evaluation").expanduser()


@dataclasses.dataclass(frozen=True)
class Source:
    """A Debian package, and the folder in it that holds what is of interest."""

    package: str
    folder: str


SOURCES = {
    # <language>/{alpha,syllab}/*.ogg: letters and syllables, one speaker (or few) per language
    "klettres": Source("klettres-data", "usr/share/klettres"),
    # voices/<pack>/<phrase>.ogg, Music/*.ogg, *.ogg (effects)
    "hedgewars": Source("hedgewars-data", "usr/share/games/hedgewars/Data/Sounds"),
    "hedgewars-music": Source("hedgewars-data", "usr/share/games/hedgewars/Data/Music"),
    # {drums,basses,bassloops,beats,effects,instruments,latin,misc,stringsnpads,...}/*.ogg
    "lmms": Source("lmms-common", "usr/share/lmms/samples"),
    # {Animal,Effects,Electronic,Human,Instruments,Music Loops,Percussion,Vocals}/*
    "scratch": Source("scratch", "usr/share/scratch/Media/Sounds"),
    # <key code in hex>-<0: press, 1: release>.wav, recorded from a keyboard
    "bucklespring": Source("bucklespring-data", "usr/share/buckle/wav"),
    # OPL-3_FM_128M.sf2: General MIDI of a frequency modulation chip
    "opl3": Source("opl3-soundfont", "usr/share/sounds/sf2"),
    # Tone_*/*.pat, Drum_000/*.pat: patches of recorded instruments (timidity reads them)
    "freepats": Source("freepats", "usr/share/midi/freepats"),
    # voice/<language>/civ/civ_<sex>_<command>_<take>.ogg, actor, attack, resource: effects
    "0ad": Source("0ad-data", "usr/share/games/0ad/mods/public/public.zip.unpacked/audio"),
}


def source_folder(name: str, cache: Path = DEFAULT_CACHE) -> Path:
    """Folder of a source's files; the package is fetched and unpacked if it is not in `cache`.

    Args:
        name: a key of `SOURCES`.
        cache: where packages (`debs/`) and their content (`packages/`) are kept; a .deb that is
            already there is used, so it also works on a machine without network.

    Raises:
        BuildError: an unknown or refused source, no apt-get or dpkg-deb, or no network.
    """
    if name not in SOURCES:
        raise BuildError(f"no evaluation source is called {name!r}; known: {', '.join(SOURCES)}")
    source = SOURCES[name]
    folder = package_folder(source.package, cache) / source.folder
    if not folder.is_dir():
        raise BuildError(f"{source.package} has no folder {source.folder}")
    return folder


def package_folder(package: str, cache: Path = DEFAULT_CACHE) -> Path:
    """Root of the unpacked content of an evaluation package; fetched if it is not in `cache`."""
    if packages.role_of(package) != "evaluation":
        raise BuildError(f"{package} is not kept for evaluation by weights/corpus/excluded.csv")
    cache = cache.expanduser().resolve()
    content = cache / "packages" / package
    if content.is_dir():
        return content
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    deb = packages.fetch(package, debs)
    # Unpacked beside and renamed: what has its name is whole.
    part = content.with_name(f"{package}.part")
    shutil.rmtree(part, ignore_errors=True)
    packages.unpack(deb, part)
    part.rename(content)
    return content


def audio_files(folder: Path) -> list[Path]:
    """Audio files below a folder that libsndfile decodes, sorted; empty and damaged ones left out.

    Hidden files are left out, and so are links to other files of the folder.
    """
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in packages.AUDIO_SUFFIXES
        and path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
        and packages.duration(path) >= packages.SHORTEST_SECONDS
    ]

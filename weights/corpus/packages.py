"""Audio files out of Debian packages, without installing them: download, unpack, collect."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import logging
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

log = logging.getLogger(__name__)

#: Formats that libsndfile decodes. Tracker modules are played first (see `containers`).
AUDIO_SUFFIXES = frozenset(
    {".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".snd", ".wav"}
)
ARCHIVE_SUFFIXES = frozenset({".love", ".pk3", ".pk4", ".zip"})
SHORTEST_SECONDS = 0.05
EXCLUDED = Path(__file__).resolve().parent / "excluded.csv"


class BuildError(RuntimeError):
    """A source cannot be built; the message says what to do about it."""


@dataclass
class Collected:
    """What one source gave: file digests by relative path, and the sum of their lengths."""

    digests: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    duplicates: int = 0
    held_out: int = 0
    unreadable: int = 0


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header line."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def role_of(package: str) -> str | None:
    """Why a package, or a part of it, must stay out: "evaluation", "reserved" or None."""
    roles = {r["role"] for r in read_csv(EXCLUDED) if fnmatch.fnmatch(package, r["pattern"])}
    return "reserved" if "reserved" in roles else next(iter(roles), None)


def kept_away(package: str) -> str:
    """Globs of a package's files that must stay out of the corpus, joined by spaces.

    "" where all may go in, "*" where none may.
    """
    rows = [r for r in read_csv(EXCLUDED) if fnmatch.fnmatch(package, r["pattern"])]
    return "*" if any(not r["files"] for r in rows) else " ".join(r["files"] for r in rows)


def require(tool: str, package: str) -> str:
    """Return the path of a command line tool, or say which package has it."""
    path = shutil.which(tool)
    if path is None:
        raise BuildError(f"{tool} not found: install it with `apt-get install {package}`")
    return path


def run(command: list[str], cwd: Path | None = None, timeout: float | None = None) -> str:
    """Run a command and return its output; its own error text becomes a BuildError."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(command[:3])} ... took over {timeout:.0f} s") from error
    if done.returncode != 0:
        reason = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise BuildError(f"{' '.join(command[:3])} ... failed: {reason}")
    return done.stdout


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def duration(path: Path) -> float:
    """Length of an audio file in seconds; 0.0 for one that libsndfile cannot read."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError):
        return 0.0
    return info.frames / info.samplerate


def fetch(package: str, cache: Path) -> Path:
    """Download a package with apt (which checks its signature chain) and return the .deb.

    A .deb that is already in `cache` is used as it is, so that a build can also
    run from a folder of packages on a machine without network.
    """
    present = sorted(cache.glob(f"{package}_*.deb"))
    if present:
        return present[-1]
    require("apt-get", "apt")
    # apt-get writes into the working directory: an own one, so that a download
    # that was cut short is never taken for a whole package.
    scratch = cache / f"{package}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        # The sandbox user of apt cannot write below a private folder.
        run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package], cwd=scratch)
        [downloaded] = scratch.glob("*.deb")
        return downloaded.rename(cache / downloaded.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def version_of(deb: Path) -> str:
    """The version field of a .deb."""
    require("dpkg-deb", "dpkg")
    return run(["dpkg-deb", "--field", str(deb), "Version"]).strip()


def unpack(deb: Path, folder: Path) -> None:
    """Unpack the files of a .deb into `folder`; needs no root and runs no package script.

    Game archives inside it (.love, .pk3 and .pk4 are zip files) are unpacked beside themselves.
    """
    require("dpkg-deb", "dpkg")
    folder.mkdir(parents=True, exist_ok=True)
    run(["dpkg-deb", "-x", str(deb), str(folder)])
    for archive in [p for p in folder.rglob("*") if p.suffix.lower() in ARCHIVE_SUFFIXES]:
        if archive.is_symlink() or not zipfile.is_zipfile(archive):
            continue
        with zipfile.ZipFile(archive) as contents:
            for member in contents.namelist():
                if Path(member).suffix.lower() in AUDIO_SUFFIXES:
                    contents.extract(member, archive.with_name(archive.name + ".unpacked"))


def unpacked(package: str, cache: Path) -> Path:
    """Folder of a package's files below `cache`; downloaded and unpacked if it is not there."""
    folder = cache / "tools" / package
    if not folder.is_dir():
        debs = cache / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        part = folder.with_name(f"{package}.part")
        shutil.rmtree(part, ignore_errors=True)
        unpack(fetch(package, debs), part)
        part.rename(folder)
    return folder


def wanted(relative: str, include: str, exclude: str) -> bool:
    """Whether a path matches `include` and not `exclude`; both are globs joined by spaces."""
    included = not include or any(fnmatch.fnmatch(relative, p) for p in include.split())
    return included and not any(fnmatch.fnmatch(relative, p) for p in exclude.split())


def collect(
    tree: Path,
    target: Path,
    seen: set[str],
    held_out: set[str],
    include: str = "",
    exclude: str = "",
) -> Collected:
    """Hard-link every new, readable audio file of `tree` into `target`, same relative path.

    `seen` holds the digests already in the corpus; recordings of it and of
    `held_out` are skipped, so a sound that several packages share counts once.
    """
    result = Collected()
    taken = set(seen)
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree).as_posix()
        if path.suffix.lower() not in AUDIO_SUFFIXES or path.is_symlink() or not path.is_file():
            continue
        if not wanted(relative, include, exclude):
            continue
        digest = sha256(path)
        if digest in held_out:
            result.held_out += 1
            continue
        if digest in taken:
            result.duplicates += 1
            continue
        seconds = duration(path)
        if seconds < SHORTEST_SECONDS:
            result.unreadable += 1
            log.debug("skipped, too short or unreadable: %s", relative)
            continue
        copy = target / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(path, copy)
        taken.add(digest)
        result.digests[relative] = digest
        result.seconds += seconds
    return result


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link where the file system can, otherwise copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

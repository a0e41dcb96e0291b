"""Read the licence of each package's audio out of its Debian copyright file.

    python -m weights.corpus.licences FOLDER_OF_DEBS licences.csv

A machine-readable copyright file (DEP 5) names licences by file. Its paths are those of the source
package, so each audio file gets the stanza whose pattern agrees with the end of its path in most
parts (of those the last one, as DEP 5 says). Other copyright files are prose: rows that a person
has read have `read` = "hand" and are kept as they are; the others name what the prose mentions.
"""

from __future__ import annotations

import csv
import fnmatch
import re
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

from weights.corpus.containers import MODULE_SUFFIXES
from weights.corpus.packages import ARCHIVE_SUFFIXES, AUDIO_SUFFIXES, read_csv, run

COLUMNS = ("package", "version", "licence", "fit", "read", "attribution", "note")
GAME_CONTAINERS = frozenset({".1c", ".dsk", ".rcc"})
#: Licences, as SPDX names without version, that allow use, change and redistribution.
FREE = re.compile(
    r"^(A?GPL|LGPL|CC0|CC-BY|CC-BY-SA|MIT|BSD|Artistic|Apache|Zlib|ISC|WTFPL|GFDL|FAL|BSL|OFL|EPL|MPL"
    r"|Unlicense|public-domain|permissive)(-[\d.]+)?(-(only|or-later|Clause))*$"
)
_NAMES = (
    (r"\bexpat\b|^mit\b|^x11\b", "MIT"),
    (r"\bpublic[ -]?domain|^pd\b", "public-domain"),
    (r"^free[- ]art|^fal\b|^lal\b", "FAL"),
    (r"\bzlib|libpng", "Zlib"),
    (r"^bsd|bsd$|-bsd\b", "BSD"),
    (r"^cc0|^cc-zero", "CC0-1.0"),
    (r"^artistic", "Artistic"),
    (r"^wtfpl", "WTFPL"),
    (r"^sil\b|^ofl", "OFL"),
)
_PROSE = (
    (
        r"common-licenses/((?:L|A)?GPL-[\d.]+|GFDL(?:-[\d.]+)?|Artistic|BSD|Apache-2.0|CC0-1.0)",
        None,
    ),
    (r"public domain", "public-domain"),
    (r"Attribution[- ]Share-?Alike[^.]{0,20}?(\d\.\d)", "CC-BY-SA"),
    (r"Attribution (\d\.\d)|CC[- ]BY[- ](\d\.\d)", "CC-BY"),
    (r"non-?commercial", "NONCOMMERCIAL"),
    (r"no-?deriv", "NODERIVATIVES"),
)


def spdx(name: str) -> str:
    """A DEP 5 licence name in SPDX's spelling where it is one of the common ones."""
    name = name.strip().rstrip(",")
    gpl = re.match(r"^(A?GPL|LGPL|GFDL)-?v?(\d(?:\.\d)?)?(?:\.0)?(\+|-or-later|-only)?(.*)$", name)
    if gpl and not gpl[4].strip(" -"):
        version = f"-{gpl[2]}" if gpl[2] else ""
        version += ".0" if gpl[2] and "." not in gpl[2] else ""
        return (
            gpl[1]
            + version
            + ("-or-later" if gpl[3] in ("+", "-or-later") else "-only" * bool(gpl[2]))
        )
    creative = re.match(r"^cc-?(by(?:-sa|-nc|-nd)*)-?v?(\d(?:\.\d)?)?(?:-unported)?$", name.lower())
    if creative:
        version = creative[2] or ""
        return f"CC-{creative[1].upper()}-{version + '.0' * (len(version) == 1)}".rstrip("-")
    for pattern, common in _NAMES:
        if re.search(pattern, name.lower()):
            return common
    return name


def is_free(licence: str) -> bool:
    """Whether one of the alternatives ("A or B") of a licence name is fit for the corpus."""
    alternatives = re.split(r"\s+or\s+|\s+OR\s+|\|", licence)
    return any(
        all(FREE.match(spdx(part)) for part in re.split(r"\s+and\s+|\s+AND\s+|,\s*", each))
        for each in alternatives
    )


def stanzas(text: str) -> list[tuple[list[str], str]]:
    """(patterns, licence name) of every Files paragraph; empty if the file is not DEP 5."""
    found = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):((?:.*)(?:\n[ \t]+.*)*)", paragraph, re.M))
        fields = {key.lower(): value for key, value in fields.items()}
        if "files" in fields and "license" in fields:
            name = fields["license"].strip().split("\n")[0]
            found.append((fields["files"].replace(",", " ").split(), name))
    return found


def agreement(path: str, pattern: str) -> int:
    """Number of parts in which the ends of a path and a pattern agree; 0 for "*", -1 for none."""
    if pattern in {"*", "./*"}:
        return 0
    parts = PurePosixPath(path).parts
    wanted = PurePosixPath(pattern.removeprefix("./")).parts
    for cut in range(len(wanted)):
        tail = "/".join(wanted[cut:])
        if cut and tail.strip("*/") == "":
            break  # of "art/*" no more than a star is left
        for start in range(len(parts)):
            if fnmatch.fnmatchcase("/".join(parts[start:]), tail):
                return len(wanted) - cut
    return -1


def licences_of(path: str, paragraphs: list[tuple[list[str], str]]) -> set[str]:
    """The licence of a file by the paragraphs of its package's copyright file.

    What is in an archive may be under any of them.
    """
    if PurePosixPath(path).suffix.lower() in ARCHIVE_SUFFIXES | GAME_CONTAINERS:
        return {name for patterns, name in paragraphs if not patterns[0].startswith("debian/")}
    ranked = [
        (max((agreement(path, p) for p in patterns if not p.startswith("debian/")), default=-1), n)
        for n, (patterns, _) in enumerate(paragraphs)
    ]
    best = max(ranked, default=(-1, 0))
    return {paragraphs[best[1]][1] if best[0] >= 0 else "?"}


def mentioned(text: str) -> set[str]:
    """Names of licences that a copyright file in prose speaks of; for a person to judge."""
    found = set()
    for pattern, name in _PROSE:
        for match in re.finditer(pattern, text, re.I):
            version = next((group for group in match.groups() if group), "")
            found.add(f"{name}-{version}".rstrip("-") if name else version)
    return found


def read_package(deb: Path) -> tuple[str, list[str], str, str]:
    """(copyright text, audio paths, attribution path, version) of a .deb."""
    name, _, version = run(["dpkg-deb", "-f", str(deb), "Package", "Version"]).partition("\n")
    name, version = name.split()[-1], version.split()[-1]
    attribution = f"usr/share/doc/{name}/copyright"
    text, audio = "", []
    with (
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE
        ) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            path = member.name.removeprefix("./")
            if path == attribution and member.isfile():
                stream = tar.extractfile(member)
                text = stream.read().decode("utf-8", "replace") if stream else ""
            elif path == f"usr/share/doc/{name}" and member.issym():
                attribution = f"usr/share/doc/{member.linkname}/copyright"
            suffix = PurePosixPath(path).suffix.lower()
            if suffix in AUDIO_SUFFIXES | MODULE_SUFFIXES | ARCHIVE_SUFFIXES | GAME_CONTAINERS:
                audio.append(path)
    return text, audio, attribution, version


def row_of(deb: Path) -> dict[str, str]:
    """The table's row of a package, as far as a program can read it."""
    text, audio, attribution, version = read_package(deb)
    row = dict.fromkeys(COLUMNS, "")
    row |= {"package": deb.name.split("_")[0], "version": version, "attribution": attribution}
    paragraphs = stanzas(text)
    if not paragraphs:
        row |= {"licence": " AND ".join(sorted(mentioned(text))), "fit": "?", "read": "prose"}
        return row
    names = sorted(set().union(*(licences_of(path, paragraphs) for path in audio))) or ["?"]
    fit = all(is_free(name) for name in names)
    licences = sorted({name if " " in name else spdx(name) for name in names})
    return row | {"licence": " AND ".join(licences), "fit": "yes" if fit else "?", "read": "DEP 5"}


def main(debs: Path, table: Path) -> None:
    """Update the table with every package of a folder."""
    rows = {row["package"]: row for row in read_csv(table)} if table.is_file() else {}
    for deb in sorted(debs.glob("*.deb")):
        row = row_of(deb)
        known = rows.get(row["package"], {})
        if known.get("read") == "hand":
            row |= {column: known[column] for column in ("licence", "fit", "read", "note")}
        rows[row["package"]] = row
    part = table.with_name(table.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
    part.rename(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Read the licence of each package's audio out of its Debian copyright file.

    python -m weights.corpus.licences FOLDER_OF_DEBS licences.csv

A machine-readable copyright file (DEP 5) names licences by file. Its paths are those of the source
package, so each audio file gets the stanza whose pattern agrees with the end of its path in most
parts (of those the last one, as DEP 5 says). Other copyright files are prose, which a person has to
read: rows whose `read` is "hand" are kept as they are.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from weights.corpus.containers import MODULE_SUFFIXES
from weights.corpus.packages import ARCHIVE_SUFFIXES, AUDIO_SUFFIXES, read_csv, run

COLUMNS = ("package", "version", "licence", "fit", "read", "attribution", "note")
CONTAINERS = ARCHIVE_SUFFIXES | {".1c", ".dsk", ".rcc"}  # the latter three are of games
#: Licences, as SPDX names without version, that allow use, change and redistribution.
FREE = re.compile(
    r"^(A?GPL|LGPL|CC0|CC-BY|CC-BY-SA|MIT|BSD|Artistic|Apache|Zlib|ISC|WTFPL|GFDL|FAL|BSL|OFL|EPL|MPL"
    r"|Unlicense|public-domain|permissive)(-[\d.]+)?(-(only|or-later|Clause))*$"
)
NAMES = {
    r"\bexpat\b|^mit\b|^x11\b": "MIT",
    r"\bpublic[ -]?domain|^pd\b": "public-domain",
    r"^free[- ]art|^fal\b|^lal\b": "FAL",
    r"\bzlib|libpng": "Zlib",
    r"^bsd|bsd$|-bsd\b": "BSD",
    r"^cc0|^cc-zero": "CC0-1.0",
    r"^artistic": "Artistic",
    r"^wtfpl": "WTFPL",
    r"^sil\b|^ofl": "OFL",
}
Stanzas = list[tuple[list[str], str]]  # patterns and name of the licence


def spdx(name: str) -> str:
    """A DEP 5 licence name in SPDX's spelling where it is one of the common ones."""
    name = name.strip().rstrip(",")
    gnu = re.match(r"^(A?GPL|LGPL|GFDL)(?:-?v?(\d(?:\.\d)?)(?:\.0)?(\+|-or-later|-only)?)?$", name)
    if gnu:
        family, version, later = gnu.groups()
        if not version:
            return family
        version += ".0" * ("." not in version)
        return f"{family}-{version}-{'or-later' if later in ('+', '-or-later') else 'only'}"
    creative = re.match(r"^cc-?(by(?:-sa|-nc|-nd)*)-?v?(\d)(\.\d)?(?:-unported)?$", name.lower())
    if creative:
        return f"CC-{creative[1].upper()}-{creative[2]}{creative[3] or '.0'}"
    return next((common for form, common in NAMES.items() if re.search(form, name.lower())), name)


def is_free(licence: str) -> bool:
    """Whether one of the alternatives ("A or B") of a licence name is fit for the corpus."""
    return any(
        all(FREE.match(spdx(part)) for part in re.split(r"\s+(?:and|AND)\s+|,\s*", each))
        for each in re.split(r"\s+(?:or|OR)\s+|\|", licence)
    )


def stanzas(text: str) -> Stanzas:
    """Every Files paragraph; empty if the file is not DEP 5."""
    found = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):((?:.*)(?:\n[ \t]+.*)*)", paragraph, re.M))
        if "Files" in fields and "License" in fields:
            name = fields["License"].strip().split("\n")[0]
            found.append((fields["Files"].replace(",", " ").split(), name))
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
        if any(fnmatchcase("/".join(parts[start:]), tail) for start in range(len(parts))):
            return len(wanted) - cut
    return -1


def licences_of(path: str, paragraphs: Stanzas) -> set[str]:
    """The licence of a file by the paragraphs of its package's copyright file.

    What is in an archive may be under any of them.
    """
    paragraphs = [(p, name) for p, name in paragraphs if not p[0].startswith("debian/")]
    if PurePosixPath(path).suffix.lower() in CONTAINERS:
        return {name for _, name in paragraphs}
    best, licence = -1, "?"
    for patterns, name in paragraphs:
        agrees = max(agreement(path, pattern) for pattern in patterns)
        if agrees >= max(best, 0):
            best, licence = agrees, name
    return {licence}


def row_of(deb: Path) -> dict[str, str]:
    """The table's row of a package, as far as a program can read it."""
    name, version = (run(["dpkg-deb", "-f", str(deb), f]).strip() for f in ("Package", "Version"))
    with tempfile.TemporaryDirectory() as folder:
        run(["dpkg-deb", "-x", str(deb), folder])
        documents = Path(folder, "usr/share/doc")
        shared = documents / name  # may be a link to the folder of another package
        attribution = (
            f"usr/share/doc/{shared.readlink() if shared.is_symlink() else name}/copyright"
        )
        file = Path(folder, attribution)
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
        suffixes = AUDIO_SUFFIXES | MODULE_SUFFIXES | CONTAINERS
        files = [p for p in Path(folder).rglob("*") if p.suffix.lower() in suffixes]
        audio = [p.relative_to(folder).as_posix() for p in files]
    row = dict.fromkeys(COLUMNS, "") | {
        "package": name,
        "version": version,
        "attribution": attribution,
    }
    paragraphs = stanzas(text)
    if not paragraphs:
        return row | {"licence": "?", "fit": "?", "read": "prose"}
    names = set().union(*(licences_of(path, paragraphs) for path in audio)) or {"?"}
    licences = " AND ".join(sorted({n if " " in n else spdx(n) for n in names}))
    fit = "yes" if all(map(is_free, names)) else "?"
    return row | {"licence": licences, "fit": fit, "read": "DEP 5"}


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

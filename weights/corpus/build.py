"""Build the pretraining corpus: recordings out of Debian packages, and rendered sound.

    python -m weights.corpus.build DEST [--kinds KIND ...] [--only NAME ...]
        [--hours-scale X] [--workers N] [--check]

Reads `sources.csv` beside this file. Recordings come out of Debian packages
(`apt-get download` + `dpkg-deb -x`: nothing is installed, no root needed); what
the rendered kinds need, README.md lists. Every source ends in DEST/KIND/NAME/, so
that training can weight the kinds; it is built beside that and renamed when it is
whole, and its stamp DEST/.stamps/NAME.json is written last, so an interrupted build
is simply run again. DEST/manifest.csv lists what was built, DEST/.attribution/NAME
holds each package's authors and licences.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weights.corpus import containers, packages, rendering
from weights.corpus.packages import BuildError, Collected, kept_away, read_csv, role_of

log = logging.getLogger("corpus")
HERE = Path(__file__).resolve().parent
RECORDED = ("speech", "music", "sound")
KINDS = (*RECORDED, "midi", "voices", "physical", "environment", "tones", "rooms")
MANIFEST_COLUMNS = ("name", "package", "version", "licence", "kind", "files", "hours")


@dataclass(frozen=True)
class Source:
    """One row of sources.csv.

    `hours` and `files` are what the build of `version` gave; for what is rendered clip by clip,
    `hours` is what it is rendered up to.
    """

    name: str
    kind: str
    package: str
    version: str
    licence: str
    hours: float
    files: int
    include: str  # globs on the path in the package, joined by spaces; empty for all
    exclude: str
    extract: str = ""  # a key of containers.EXTRACTORS; for rendered sound, the module
    attribution: str = ""  # the file in the package that names authors and licences


def read_sources(path: Path = HERE / "sources.csv") -> list[Source]:
    """The sources in the order they are built (which decides who keeps a duplicate)."""
    sources = []
    for row in read_csv(path):
        values: dict[str, Any] = dict(row)
        values |= {"hours": float(row["hours"] or 0), "files": int(row["files"] or 0)}
        sources.append(Source(**values))
    return sources


def read_held_out(path: Path = HERE / "held_out.csv") -> set[str]:
    """SHA-256 of single recordings that must stay out (the clips of examples/)."""
    return {row["sha256"] for row in read_csv(path)}


def refuse_excluded(sources: list[Source]) -> None:
    """Raise BuildError if a source is kept for evaluation or reserved."""
    for source in sources:
        if kept_away(source.package) == "*":
            raise BuildError(f"{source.package} is {role_of(source.package)}, not for the corpus")


class Corpus:
    """The folder that is built: where a source, its stamp and its downloads are."""

    def __init__(
        self, folder: Path, debs: Path | None = None, hours_scale: float = 1.0, workers: int = 1
    ) -> None:
        self.folder = folder
        self.stamps = folder / ".stamps"
        self.scratch = folder / ".scratch"
        self.cache = folder / ".cache"
        self.debs = debs or self.cache / "debs"
        self.keeps_debs = debs is not None
        self.hours_scale, self.workers = hours_scale, workers

    def place(self, source: Source) -> Path:
        """Where a source's audio is."""
        return self.folder / source.kind / source.name

    def _stamp_path(self, source: Source) -> Path:
        return self.stamps / f"{source.name}.json"

    def stamp(self, source: Source) -> dict[str, Any] | None:
        """What was built for a source, or None if it is not complete."""
        path = self._stamp_path(source)
        if not path.is_file() or not self.place(source).is_dir():
            return None
        return json.loads(path.read_text(encoding="utf-8"))

    def seen(self) -> set[str]:
        """Digests of all files of the sources that have a stamp."""
        stamps = self.stamps.glob("*.json")
        return {d for path in stamps for d in json.loads(path.read_text())["digests"].values()}

    def build(self, source: Source, held_out: set[str]) -> None:
        """Build one source, or leave it alone if it is complete."""
        if self.stamp(source) is not None:
            log.info("%-28s already complete", source.name)
            return
        started = time.monotonic()
        work = self.scratch / source.name
        shutil.rmtree(self.place(source), ignore_errors=True)
        shutil.rmtree(work / "audio", ignore_errors=True)
        if source.kind in RECORDED:  # what was rendered already is used
            shutil.rmtree(work, ignore_errors=True)
        # Else its files would count as duplicates of themselves, where the folder was deleted.
        self._stamp_path(source).unlink(missing_ok=True)
        (work / "audio").mkdir(parents=True)
        self.debs.mkdir(parents=True, exist_ok=True)
        version, collected = self._make(source, work, held_out)
        if not collected.digests:
            raise BuildError(f"{source.name}: no audio file found in {source.package}")
        self.place(source).parent.mkdir(exist_ok=True)
        (work / "audio").rename(self.place(source))
        self._write_stamp(source, version, collected)
        shutil.rmtree(work)
        log.info(
            "%-28s %5d files %6.2f h (%d duplicate, %d held out, %d unreadable) in %.0f s",
            source.name,
            len(collected.digests),
            collected.seconds / 3600,
            collected.duplicates,
            collected.held_out,
            collected.unreadable,
            time.monotonic() - started,
        )

    def _make(self, source: Source, work: Path, held_out: set[str]) -> tuple[str, Collected]:
        tree = work / "tree"
        if source.kind not in RECORDED:
            version = source.version
            hours = source.hours * self.hours_scale
            module = f"weights.corpus.{source.extract}"
            rendering.render_all(module, tree, self.cache, hours, self.workers)
        else:
            deb = packages.fetch(source.package, self.debs)
            version = packages.version_of(deb)
            packages.unpack(deb, tree)
            if source.extract:
                containers.EXTRACTORS[source.extract](tree)
            containers.play_modules(tree)
            self._keep_attribution(source, tree)
            if not self.keeps_debs:
                deb.unlink()
        if source.version and version != source.version:
            log.warning(
                "%s: version %s, but sources.csv was made with %s; hours and licences may differ",
                source.package,
                version,
                source.version,
            )
        exclude = f"{source.exclude} {kept_away(source.package)}"
        collected = packages.collect(
            tree, work / "audio", self.seen(), held_out, source.include, exclude
        )
        return version, collected

    def _keep_attribution(self, source: Source, tree: Path) -> None:
        """Keep the file that names authors and licences beside the audio, as licences ask."""
        if not source.attribution:
            return
        target = self.folder / ".attribution" / source.name
        target.parent.mkdir(exist_ok=True)
        file = tree / source.attribution
        if not file.is_file():  # a link to the folder of a package that this one depends on
            log.warning("%s has no file %s", source.package, source.attribution)
            return
        shutil.copyfile(file, target)

    def _write_stamp(self, source: Source, version: str, collected: Collected) -> None:
        self.stamps.mkdir(exist_ok=True)
        stamp = {
            "name": source.name,
            "package": source.package,
            "version": version,
            "licence": source.licence,
            "kind": source.kind,
            "files": len(collected.digests),
            "hours": round(collected.seconds / 3600, 3),
            "digests": collected.digests,
        }
        path = self._stamp_path(source)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(stamp, indent=0), encoding="utf-8")
        part.rename(path)

    def write_manifest(self) -> dict[str, float]:
        """Write manifest.csv from the stamps; return the hours by kind."""
        hours = dict.fromkeys(KINDS, 0.0)
        part = self.folder / "manifest.csv.part"
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, MANIFEST_COLUMNS, extrasaction="ignore")
            writer.writeheader()
            for path in sorted(self.stamps.glob("*.json")):
                stamp = json.loads(path.read_text(encoding="utf-8"))
                writer.writerow(stamp)
                hours[stamp["kind"]] += stamp["hours"]
        part.rename(self.folder / "manifest.csv")
        return hours

    def problems(self, sources: list[Source]) -> list[str]:
        """What is missing or changed, in words; empty for a complete corpus."""
        found = []
        for source in sources:
            stamp = self.stamp(source)
            if stamp is None:
                found.append(f"{source.name}: not built")
                continue
            for relative, digest in stamp["digests"].items():
                path = self.place(source) / relative
                if not path.is_file():
                    found.append(f"{source.name}: {relative} is missing")
                elif packages.sha256(path) != digest:
                    found.append(f"{source.name}: {relative} has changed")
        return found


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dest", type=Path, help="folder of the corpus, made if missing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="build or check only these")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="build or check only these")
    parser.add_argument(
        "--hours-scale", type=float, default=1.0, help="rendered hours, times this (1.0)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="for rendering")
    parser.add_argument("--check", action="store_true", help="verify every file, build nothing")
    parser.add_argument("--debs", type=Path, help="folder with .deb files (DEST/.cache/debs)")
    parser.add_argument("--sources", type=Path, default=HERE / "sources.csv")
    parser.add_argument("--held-out", type=Path, default=HERE / "held_out.csv")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status: 0, or 1 if any source failed."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    sources = read_sources(options.sources)
    if options.only:
        unknown = set(options.only) - {source.name for source in sources}
        if unknown:
            log.error("not in %s: %s", options.sources.name, ", ".join(sorted(unknown)))
            return 2
        sources = [source for source in sources if source.name in options.only]
    if options.kinds:
        sources = [source for source in sources if source.kind in options.kinds]
    debs = options.debs.resolve() if options.debs else None
    corpus = Corpus(options.dest.resolve(), debs, options.hours_scale, options.workers)
    if options.check:
        problems = corpus.problems(sources)
        for problem in problems:
            log.error(problem)
        log.info("%d sources checked, %d problems", len(sources), len(problems))
        return 1 if problems else 0
    return build_all(corpus, sources, read_held_out(options.held_out))


def build_all(corpus: Corpus, sources: list[Source], held_out: set[str]) -> int:
    """Build every source, go on after one that fails, write the manifest."""
    failed = []
    try:
        refuse_excluded(sources)
        corpus.folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            try:
                corpus.build(source, held_out)
            except BuildError as error:
                log.error("%s: %s", source.name, error)
                failed.append(source.name)
    except BuildError as error:
        log.error("%s", error)
        return 1
    hours = corpus.write_manifest()
    summary = ", ".join(f"{kind} {value:.1f}" for kind, value in hours.items())
    log.info("hours: %s; total %.1f", summary, sum(hours.values()))
    if failed:
        log.error("failed: %s", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

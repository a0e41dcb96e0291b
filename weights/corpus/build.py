"""Build the pretraining corpus: recordings out of Debian packages, and rendered sound.

    python -m weights.corpus.build DEST [--kinds KIND ...] [--only NAME ...]
        [--hours-scale X] [--workers N] [--check]

Reads `sources.csv` beside this file. Recordings come out of Debian packages
(`apt-get download` + `dpkg-deb -x`: nothing is installed, no root needed); what
the rendered kinds need, README.md lists. Every source ends in DEST/KIND/NAME/, so
that training can weight the kinds; it is built in DEST/.scratch and renamed when it is
whole, and its stamp DEST/.stamps/NAME.json is written last, so an interrupted build
is simply run again. DEST/manifest.csv lists what was built, DEST/.attribution/NAME
holds each package's authors and licences.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
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
from weights.corpus.packages import BuildError, kept_away, read_csv, role_of

log = logging.getLogger("corpus")
HERE = Path(__file__).resolve().parent
SOURCES, HELD_OUT = HERE / "sources.csv", HERE / "held_out.csv"
RECORDED = ("speech", "music", "sound")
KINDS = (*RECORDED, "midi", "voices", "physical", "environment", "tones", "rooms")
MANIFEST_COLUMNS = ("name", "package", "version", "licence", "kind", "files", "hours")


@dataclass(frozen=True)
class Source:
    """One row of sources.csv."""

    name: str
    kind: str
    package: str
    version: str
    licence: str
    hours: float  # that the build of `version` gave; of rendered sound, what it is rendered up to
    files: int  # that the build of `version` gave
    include: str = ""  # globs on the path in the package, joined by spaces; empty for all
    extract: str = ""  # a key of containers.EXTRACTORS; for rendered sound, the module
    attribution: str = ""  # the file in the package that names authors and licences


def read_sources() -> list[Source]:
    """The sources in the order they are built (which decides who keeps a duplicate)."""
    sources = []
    for row in read_csv(SOURCES):
        values: dict[str, Any] = dict(row)
        values |= {"hours": float(row["hours"] or 0), "files": int(row["files"] or 0)}
        sources.append(Source(**values))
    return sources


class Corpus:
    """The folder that is built."""

    def __init__(self, folder: Path, hours_scale: float = 1.0, workers: int = 1) -> None:
        self.folder = folder
        self.hours_scale, self.workers = hours_scale, workers

    def place(self, source: Source) -> Path:
        """Where a source's audio is."""
        return self.folder / source.kind / source.name

    def stamps(self) -> dict[str, dict[str, Any]]:
        """What was built, by the names of the sources that are complete."""
        paths = sorted((self.folder / ".stamps").glob("*.json"))
        stamps = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return {s["name"]: s for s in stamps if (self.folder / s["kind"] / s["name"]).is_dir()}

    def build(self, source: Source, held_out: set[str]) -> None:
        """Build one source, or leave it alone if it is complete."""
        stamps = self.stamps()
        if source.name in stamps:
            log.info("%-28s already complete", source.name)
            return
        started = time.monotonic()
        work = self.folder / ".scratch" / source.name
        tree, audio = work / "tree", work / "audio"
        shutil.rmtree(self.place(source), ignore_errors=True)
        shutil.rmtree(audio, ignore_errors=True)
        version = source.version
        if source.kind in RECORDED:
            shutil.rmtree(tree, ignore_errors=True)
            version = self._unpack(source, tree)
        else:  # clips that were rendered before a stop are used
            module, hours = f"weights.corpus.{source.extract}", source.hours * self.hours_scale
            rendering.render_all(module, tree, self.folder / ".cache", hours, self.workers)
        known = held_out.union(*(stamp["digests"].values() for stamp in stamps.values()))
        exclude = kept_away(source.package)
        collected = packages.collect(tree, audio, known, source.include, exclude)
        if not collected.digests:
            raise BuildError(f"{source.name}: no audio file found in {source.package}")
        self.place(source).parent.mkdir(exist_ok=True)
        audio.rename(self.place(source))
        files, hours = len(collected.digests), collected.seconds / 3600
        self._write_stamp(
            dataclasses.asdict(source)
            | {"version": version, "files": files, "hours": round(hours, 3)}
            | {"digests": collected.digests}
        )
        shutil.rmtree(work)
        left_out = f"{collected.known} known or held out, {collected.unreadable} unreadable"
        took = time.monotonic() - started
        log.info(
            "%-28s %5d files %6.2f h (%s) in %.0f s", source.name, files, hours, left_out, took
        )

    def _unpack(self, source: Source, tree: Path) -> str:
        """Fetch and unpack a package, and delete its .deb; returns the version."""
        debs = self.folder / ".cache" / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        deb = packages.fetch(source.package, debs)
        version = packages.version_of(deb)
        if version != source.version:
            made_with = f"{SOURCES.name} was made with {source.version}"
            message = "%s: version %s, but %s; hours and licences may differ"
            log.warning(message, source.package, version, made_with)
        packages.unpack(deb, tree)
        deb.unlink()
        if source.extract:
            containers.EXTRACTORS[source.extract](tree)
        containers.play_modules(tree)
        authors = tree / source.attribution
        if authors.is_file():  # licences ask to keep it beside the audio
            (self.folder / ".attribution").mkdir(exist_ok=True)
            shutil.copyfile(authors, self.folder / ".attribution" / source.name)
        else:  # a link to the folder of a package that this one depends on
            log.warning("%s has no file %s", source.package, source.attribution)
        return version

    def _write_stamp(self, stamp: dict[str, Any]) -> None:
        path = self.folder / ".stamps" / f"{stamp['name']}.json"
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(stamp, indent=0), encoding="utf-8")
        part.rename(path)

    def write_manifest(self) -> dict[str, float]:
        """Write manifest.csv from the stamps; return the hours by kind."""
        stamps = self.stamps().values()
        part = self.folder / "manifest.csv.part"
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, MANIFEST_COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(stamps)
        part.rename(self.folder / "manifest.csv")
        return {kind: sum(s["hours"] for s in stamps if s["kind"] == kind) for kind in KINDS}

    def problems(self, sources: list[Source]) -> list[str]:
        """What is missing or changed, in words; empty for a complete corpus."""
        found, stamps = [], self.stamps()
        for source in sources:
            if source.name not in stamps:
                found.append(f"{source.name}: not built")
                continue
            for relative, digest in stamps[source.name]["digests"].items():
                path = self.place(source) / relative
                if not path.is_file():
                    found.append(f"{source.name}: {relative} is missing")
                elif packages.sha256(path) != digest:
                    found.append(f"{source.name}: {relative} has changed")
        return found


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status: 0, or 1 if any source failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dest", type=Path, help="folder of the corpus, made if missing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="build or check only these")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="build or check only these")
    parser.add_argument("--hours-scale", type=float, default=1.0, help="factor of rendered hours")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="for rendering")
    parser.add_argument("--check", action="store_true", help="verify every file, build nothing")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    sources = read_sources()
    if unknown := set(options.only or ()) - {source.name for source in sources}:
        parser.error(f"not in {SOURCES.name}: {', '.join(sorted(unknown))}")
    kinds, names = options.kinds or KINDS, options.only or [source.name for source in sources]
    sources = [source for source in sources if source.kind in kinds and source.name in names]
    corpus = Corpus(options.dest.resolve(), options.hours_scale, options.workers)
    if options.check:
        problems = corpus.problems(sources)
        for problem in problems:
            log.error(problem)
        log.info("%d sources checked, %d problems", len(sources), len(problems))
        return 1 if problems else 0
    return build_all(corpus, sources)


def build_all(corpus: Corpus, sources: list[Source]) -> int:
    """Build every source, go on after one that fails, write the manifest."""
    for source in sources:
        if kept_away(source.package) == "*":
            log.error("%s is not for the corpus: %s", source.package, role_of(source.package))
            return 1
    held_out = {row["sha256"] for row in read_csv(HELD_OUT)}
    failed = []
    corpus.folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        try:
            corpus.build(source, held_out)
        except BuildError as error:
            log.error("%s: %s", source.name, error)
            failed.append(source.name)
    hours = corpus.write_manifest()
    summary = ", ".join(f"{kind} {value:.1f}" for kind, value in hours.items())
    log.info("hours: %s; total %.1f", summary, sum(hours.values()))
    if failed:
        log.error("failed: %s", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

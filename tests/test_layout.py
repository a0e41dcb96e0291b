"""Which part of the package may import which: read from the source, imports in functions included.

A part is a folder of the package, or one file beside the folders (the core).
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hear_msm_mae"
FACADE = "__init__"  # offers the public functions, by name, and the version
FILES = {
    path.relative_to(PACKAGE).as_posix().removesuffix(".py"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = {name.split("/")[0] for name in FILES if "/" in name}
# What other libraries reach the models through; nothing imports a door but another door.
DOORS = {"modeling_msm_mae", "sentence_transformers", "transformers"}
CORE = {name for name in FILES if "/" not in name} - {FACADE, "__main__"} - DOORS
# Every part may also import from its folder, and public names of torch and other libraries.
ALLOWED = {
    "audio": {"config", "files", "extras"},
    "checkpoints": {"checks", "config", "encoder", "files", "mae", "extras"},
    "embed": CORE | {"audio", "checkpoints"},
    "corpus": CORE | {"audio", "checkpoints"},
    "visualize": CORE | {"audio", "checkpoints"},
    "pretrain": CORE | {"audio", "checkpoints", "corpus"},
    "answers": CORE | {"audio", "checkpoints", "embed", "visualize"},
    # Above both: it has labels and scores from answers, and the loop from pretrain.
    "tuning": CORE | {"audio", "checkpoints", "embed", "answers", "pretrain"},
    "cli": CORE | FOLDERS | {FACADE},
    "model": CORE | {"checkpoints"},
    "onnx_model": CORE | {"checkpoints"},
    "api": CORE | {"checkpoints"},
    "modeling_msm_mae": CORE,
    "transformers": {"modeling_msm_mae"},
    "sentence_transformers": CORE | {"audio"},
    FACADE: {"api", "embed", "answers", "tuning"},
    "__main__": {"cli"},
}


def imported(path: Path, package: str) -> Iterator[tuple[str, str]]:
    """(module, name in it) of each import in a file of the package with this dotted name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = above if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield module, alias.name


def file_of(module: str, name: str) -> str | None:
    """The file of this package that an import reads; None for other packages."""
    top, *rest = module.split(".")
    if top != PACKAGE.name:
        return None
    for parts in ([*rest, name], rest):  # `from . import embed` names a module
        for end in ("", "/__init__"):
            if (file := ("/".join(parts) + end).strip("/")) in FILES:
                return file
    raise AssertionError(f"no file for {module}.{name}")


def part(file: str) -> str:
    return file.split("/")[0]


@functools.cache
def arrows() -> set[tuple[str, str]]:
    """(file, file that it imports)."""
    found = set()
    for file, path in FILES.items():
        package = ".".join([PACKAGE.name, *file.split("/")[:-1]])
        found |= {(file, to) for to in (file_of(*each) for each in imported(path, package)) if to}
    return found


def test_the_imports_are_found():
    """So that the tests below cannot pass because nothing is seen."""
    found = arrows()
    assert {("api", "model"), ("model", "encoder"), (FACADE, "api")} <= found
    assert ("cli/__init__", FACADE) in found
    assert ("cli/embed", "api") in found or ("cli/common", "api") in found  # inside a function
    assert {part(to) for _, to in found if "/" in to} >= {"checkpoints", "corpus", "pretrain"}


def test_directions():
    wrong = {
        (file, to)
        for file, to in arrows()
        if part(file) != part(to) and part(to) not in ALLOWED.get(part(file), CORE)
    }
    assert wrong == set()


def test_a_folder_for_transformers_needs_the_core_alone():
    """Its files lie side by side, so none of them may start with a file of another folder.

    What functions import does not count: `HearModel.save_pretrained` is not called there.
    """
    needed: set[str | None] = set()
    waiting: set[str | None] = {"modeling_msm_mae"}
    while waiting:
        needed |= waiting
        bodies = [ast.parse(FILES[name].read_text("utf-8")).body for name in waiting if name]
        nodes = [n for body in bodies for n in body if isinstance(n, ast.ImportFrom) and n.level]
        waiting = {node.module for node in nodes} - needed
    assert needed <= CORE | {"modeling_msm_mae"}
    assert {"model", "packed", "timeline"} <= needed


@pytest.mark.parametrize("node", [part, str], ids=["parts", "files"])
def test_no_cycle(node):
    graph: dict[str, set[str]] = {}
    for file, to in arrows():
        if node(file) != node(to):
            graph.setdefault(node(file), set()).add(node(to))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"cycle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("folder", ["benchmarks", "weights", "examples"])
def test_only_public_names_are_imported(folder):
    private = []
    for path in (ROOT / folder).rglob("*.py"):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        for module, name in imported(path, package):
            words = [*module.split("."), name]
            ours = words[0] in (PACKAGE.name, "benchmarks", "weights")
            if ours and any(word[:1] == "_" and word[:2] != "__" for word in words):
                private.append(f"{path.relative_to(ROOT)}: {module}.{name}")
    assert private == []

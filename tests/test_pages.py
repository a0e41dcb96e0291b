"""The README and the pages in docs: their code runs, and their links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Doors to other libraries may be skipped: tests/doors/test_doors_page.py runs their page.
WITH_CODE = [
    page for page in PAGES if BLOCK.search(page.read_text("utf-8")) and page.name != "doors.md"
]
OTHERS = re.compile(r"(\..*|build|dist|runs)/")  # environments and what commands wrote
DOCUMENTS = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not OTHERS.match(path.relative_to(ROOT).as_posix())
]
# These install this package, or run this very suite.
NOT_HERE = ("make ", "git ", "cd ", "pip ")


def commands(code: str) -> list[str]:
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all pages."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.fixture(scope="module")
def done() -> set[str]:
    """Commands that ran already: what several pages name runs once, and its outputs stay."""
    return set()


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, folder, done):
    for language, code in BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
            result = forked.run(forked.code, code, cwd=folder)
            assert result.returncode == 0, f"{code}\n{result.stderr}"
        for line in commands(code) if language == "bash" else []:
            if not line.startswith(NOT_HERE) and line not in done:
                run_command(line, folder)
                done.add(line)


def run_command(line: str, folder: Path) -> None:
    words = shlex.split(line, comments=True)
    assert words[0] == "hear-msm-mae", f"a page names a command that nobody tests: {line}"
    if words[1] == "pretrain" and not any(word.startswith("samples=") for word in words):
        words.append("steps=4")  # of 100; the tests of pretraining train for longer
    result = forked.run(forked.hear_msm_mae, words[1:], cwd=folder)
    assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"


def test_the_readme_names_the_two_commands_for_a_new_machine():
    blocks = BLOCK.findall(PAGES[0].read_text("utf-8"))
    assert {"make demo", "make test"} <= {line for _, code in blocks for line in commands(code)}


def test_a_page_names_only_targets_that_the_makefile_has():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in DOCUMENTS:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
        assert set(named) <= targets, page


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_to_files_and_titles_that_exist(page):
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, link


def test_the_documentation_site_builds_without_a_warning(tmp_path):
    mkdocs = pytest.importorskip("mkdocs.commands.build", reason="needs the extra docs")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    mkdocs.build(config)
    assert "load_model" in (tmp_path / "site" / "reference.html").read_text("utf-8")
    shutil.rmtree(tmp_path / "site")

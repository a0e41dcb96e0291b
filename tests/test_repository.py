"""What a clone costs: large files are named in weights/RELEASES.md, each version once."""

import hashlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LARGEST = 5_000_000  # bytes
RULE_SINCE = "fd6d11e"  # nine versions of the weights were committed before this commit


def git(*arguments: str, stdin: str = "") -> str:
    how = {"cwd": ROOT, "input": stdin, "capture_output": True, "check": True, "text": True}
    return subprocess.run(["git", *arguments], **how).stdout


@pytest.fixture(scope="module", autouse=True)
def _clone():
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a clone")


def released() -> str:
    return (ROOT / "weights" / "RELEASES.md").read_text("utf-8")


def test_every_large_file_is_a_release():
    for name in filter(None, git("ls-files", "-z").split("\0")):
        path = ROOT / name
        if path.is_file() and path.stat().st_size > LARGEST:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest in released(), f"name {name} in weights/RELEASES.md, or leave it out"


def test_no_large_file_was_committed_that_is_not_a_release():
    """Also one that a later commit has removed, as every clone still fetches it."""
    try:
        objects = git("rev-list", "--objects", f"{RULE_SINCE}..HEAD")
    except subprocess.CalledProcessError:
        pytest.skip("the clone is shallow")
    form = "--batch-check=%(objectsize) %(objectname) %(rest)"
    for line in git("cat-file", form, stdin=objects).splitlines():
        size, blob, path = line.split(" ", 2)
        assert int(size) <= LARGEST or blob in released(), f"{path} was committed as blob {blob}"

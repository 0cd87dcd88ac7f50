"""A clone made with `core.autocrlf=true`, as on Windows, is the same to the byte where it matters."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone of the repository")
    folder = tmp_path_factory.mktemp("autocrlf") / "clone"
    options = ["-c", "core.autocrlf=true", "-c", "safe.directory=*"]
    command = ["git", *options, "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"git cannot clone here: {done.stderr.strip()}")
    if not (folder / ".gitattributes").is_file():
        pytest.skip("this checkout's .gitattributes is not committed yet")
    return folder


def test_shell_scripts_are_still_scripts(clone: Path) -> None:
    scripts = [*clone.rglob("*.sh"), clone / ".ci/run"]
    assert len(scripts) > 4
    for script in scripts:
        assert b"\r" not in script.read_bytes()
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_no_text_file_has_carriage_returns(clone: Path) -> None:
    for pattern in ("*.py", "*.toml", "*.txt", "*.json", "Makefile", "Dockerfile"):
        paths = list(clone.rglob(pattern))
        assert paths, pattern
        for path in paths:
            assert b"\r\n" not in path.read_bytes(), path


def test_the_networks_have_the_bytes_that_the_manifest_says(clone: Path) -> None:
    checked = 0

    def check(folder: Path, entry: object) -> None:
        nonlocal checked
        if isinstance(entry, dict):
            if {"path", "sha256"} <= entry.keys() and (folder / entry["path"]).is_file():
                content = (folder / entry["path"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["path"]
                checked += 1
            entry = list(entry.values())
        if isinstance(entry, list):
            for part in entry:
                check(folder, part)

    for manifest in clone.rglob("model.json"):
        check(manifest.parent, json.loads(manifest.read_text()))
    assert checked >= 20


def test_images_and_the_annotations_of_the_examples_are_untouched(clone: Path) -> None:
    for pattern in ("*.jpg", "*.png", "examples/**/*.csv"):
        paths = list(clone.rglob(pattern))
        assert paths, pattern
        for path in paths:
            committed = f"HEAD:{path.relative_to(clone).as_posix()}"
            command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "show", committed]
            assert path.read_bytes() == subprocess.run(command, capture_output=True, check=True).stdout

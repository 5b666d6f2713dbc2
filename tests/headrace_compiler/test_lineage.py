"""Lineage: the commit of a recipe's folder, and the tools."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from headrace_compiler.lineage import git_commit, tool_versions


def git(folder: Path, *arguments: str) -> None:
    """Runs git in a folder."""
    program = shutil.which("git")
    assert program is not None
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(
        [program, *identity, "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        env=environment,
    )


def test_the_commit_is_marked_where_the_folder_has_changes(tmp_path: Path) -> None:
    """A change in the folder marks the commit; one elsewhere, or a bundle, does not."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    assert git_commit(folder) == ""
    git(tmp_path, "init")
    assert git_commit(folder) == ""
    (folder / "recipe.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    commit = git_commit(folder)
    assert len(commit) == 40
    (tmp_path / "elsewhere.py").write_text("")
    (folder / "net-1.bundle").mkdir()
    (folder / "net-1.bundle" / "headrace.json").write_text("{}")
    assert git_commit(folder) == commit
    (folder / "recipe.py").write_text("a = 2\n")
    assert git_commit(folder) == f"{commit}-dirty"


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git builds, and says nothing of a commit."""
    git(tmp_path, "init")
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) == ""


def test_every_tool_that_takes_part_is_named() -> None:
    """Versions of Python, headrace and the frameworks are recorded."""
    versions = tool_versions()
    assert {"python", "headrace", "torch", "onnx", "onnxruntime", "numpy"} <= set(versions)
    assert all(versions.values())

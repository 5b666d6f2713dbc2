"""What made a bundle's content; nothing of it depends on when or where a build ran."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from headrace.bundle.manifest import SUFFIX
from headrace.hardware import installed_version

_DISTRIBUTIONS = (
    "datasketches",
    "headrace",
    "llvmlite",
    "nncf",
    "numba",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "pillow",
    "simplejpeg",
    "torch",
    "ziglang",
)


@dataclass(frozen=True)
class Origin:
    """What is known of a build before it starts.

    Attributes:
        recipe: sha256 of the recipe file and the modules beside it that it imports.
    """

    recipe: str
    seed: int
    target: str


def tool_versions() -> dict[str, str]:
    """The versions of Python and of the distributions that take part, by name."""
    found = {name: installed_version(name) for name in _DISTRIBUTIONS}
    there = {name: version for name, version in found.items() if version is not None}
    return {"python": platform.python_version(), **there}


def git_commit(folder: Path) -> str:
    """The commit of a folder's repository, with `-dirty` if the folder has changes.

    Bundles that lie in the folder are no changes. Empty without a repository, a commit, or git.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return ""
    changes = _git(folder, "status", "--porcelain", "--", ".", f":(exclude,glob)**/*{SUFFIX}/**")
    return f"{commit}-dirty" if changes else commit


def _git(folder: Path, *arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        return ""
    # A hook that runs this build points git at its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(  # noqa: S603 - git itself, with arguments of our own
        [program, "-C", str(folder), *arguments],
        capture_output=True,
        check=False,
        env=environment,
        text=True,
    )
    return done.stdout.strip() if done.returncode == 0 else ""

"""The CI templates, read as their systems read them: files, steps, and the scripts within."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

TEMPLATES = Path(__file__).parents[2] / "deploy" / "ci-templates"
GITHUB = TEMPLATES / "github" / "headrace.yml"
GITLAB = TEMPLATES / "gitlab" / "headrace.gitlab-ci.yml"
JENKINS = TEMPLATES / "jenkins" / "Jenkinsfile"
TRAVIS = TEMPLATES / "travis" / ".travis.yml"
SYSTEMS = ("github", "gitlab", "jenkins", "travis")
INPUTS = {
    "GATE_RECIPE": "recipe.py",
    "GATE_NAME": "model",
    "GATE_THRESHOLD": "0.05",
    "GATE_MINUTES": "10",
    "GATE_QUICK": "false",
    "GATE_EVALUATE": "false",
    "GATE_POINTS": "0.5",
    "GATE_METRICS": "",
}
"""What a template hands to its scripts where nobody chose otherwise."""

PROGRAM = """#!/bin/sh
if [ "$1" = "${STUB_FAILS:-}" ]; then exit 1; fi
case "$1" in
  compile)
    mkdir -p build/model-2.bundle
    echo '{"path": "build/model-2.bundle"}'
    ;;
  bench)
    printf '%s\\n' "$@" > arguments.txt
    for directory do :; done
    if [ "$STUB_STATUS" != 2 ] && [ -z "${STUB_REFUSES:-}" ]; then
      echo '{}' > "$directory/gate.json"
      echo '| metric | ratio |' > "$directory/summary.md"
    fi
    exit "$STUB_STATUS"
    ;;
esac
"""
"""A stand-in for `headrace`, as what is tested is what the scripts make of its exit status."""


def documents(text: str) -> list[Any]:
    """Every document of a YAML text."""
    return list(YAML(typ="safe", pure=True).load_all(text))


def scripts(system: str) -> dict[str, str]:
    """Every script of a template, by the name of its step or job."""
    return {"github": _github, "gitlab": _gitlab, "jenkins": _jenkins, "travis": _travis}[system]()


def script(system: str, part: str) -> str:
    """The one script of a template that holds a text."""
    found = [text for text in scripts(system).values() if part in text]
    assert len(found) == 1, f"{system}: {len(found)} scripts hold {part!r}"
    return found[0]


def interpolated() -> dict[str, Any]:
    """The jobs of the GitLab template, with the defaults of its inputs put in."""
    header, _ = documents(GITLAB.read_text())
    inputs = {
        name: str(spec.get("default", "given")).replace("False", "false")
        for name, spec in header["spec"]["inputs"].items()
    }
    body = GITLAB.read_text().split("\n---\n")[1]
    text = re.sub(r"\$\[\[ inputs\.(\w+) \]\]", lambda found: inputs[found[1]], body)
    jobs: dict[str, Any] = documents(text)[0]
    return jobs


def execute(
    system: str, text: str, directory: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a script as its system does, in a directory, with a `bin` there first on the path."""
    shells = {
        "github": ("bash", "--noprofile", "--norc", "-eo", "pipefail"),
        "gitlab": ("bash", "-eo", "pipefail"),
        "jenkins": ("sh", "-xe"),
        "travis": ("bash",),
    }
    path = directory / "script.sh"
    path.write_text(text)
    search = f"{directory / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*shells[system], str(path)],
        cwd=directory,
        env={"PATH": search, "LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write_program(directory: Path, name: str, text: str) -> None:
    """Puts a program first on the path of what `execute` runs there."""
    path = directory / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _github() -> dict[str, str]:
    (workflow,) = documents(GITHUB.read_text())
    return {
        f"{job}: {step['name']}": step["run"]
        for job, content in workflow["jobs"].items()
        for step in content["steps"]
        if "run" in step
    }


def _gitlab() -> dict[str, str]:
    return {
        f"{name} {number}": text
        for name, job in interpolated().items()
        for number, text in enumerate(job["script"])
    }


def _jenkins() -> dict[str, str]:
    blocks = re.findall(r"'''(.*?)'''", JENKINS.read_text(), re.DOTALL)
    return {f"block {number}": text.replace("\\\\", "\\") for number, text in enumerate(blocks)}


def _travis() -> dict[str, str]:
    (content,) = documents(TRAVIS.read_text())
    phases = (
        "before_install",
        "install",
        "before_script",
        "script",
        "before_cache",
        "after_script",
    )
    return {
        f"{name} {phase} {number}": text
        for name, job in (
            ("all", content),
            *((job["name"], job) for job in content["jobs"]["include"]),
        )
        for phase in phases
        for number, text in enumerate(job.get(phase, ()))
    }

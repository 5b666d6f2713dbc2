"""The CI templates are what their systems take, and their scripts do what they say."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ci_templates import (
    GITHUB,
    GITLAB,
    JENKINS,
    SYSTEMS,
    TRAVIS,
    documents,
    interpolated,
    script,
    scripts,
)
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
GUIDE = ROOT / "docs" / "how-to" / "ci.md"
PINNED = re.compile(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# The schema of Travis lets unknown keys through; these are all that the template needs.
TRAVIS_KEYS = {
    *("language", "python", "os", "dist", "git", "env", "stages", "cache", "addons"),
    *("install", "jobs"),
}
TRAVIS_JOB_KEYS = {
    *("stage", "name", "before_install", "before_script", "script", "before_cache", "after_script"),
}


def check_schema(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    """What check-jsonschema says of a file, by a schema that it brings along."""
    return subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", path],
        capture_output=True,
        text=True,
        check=False,
    )


def zizmor(path: Path) -> subprocess.CompletedProcess[str]:
    """What the security linter of workflows says of one, offline and pedantic."""
    return subprocess.run(
        [BIN / "zizmor", "--offline", "--no-config", "--no-progress", "--pedantic", path],
        capture_output=True,
        text=True,
        check=False,
    )


def shellcheck(text: str, shell: str) -> subprocess.CompletedProcess[str]:
    """What shellcheck says of a script."""
    return subprocess.run(
        [BIN / "shellcheck", "--norc", f"--shell={shell}", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def write_jobs(path: Path) -> Path:
    """The jobs of the GitLab template as one document, its inputs put in."""
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(interpolated(), file)
    return path


def test_github_workflow_follows_its_schema() -> None:
    """The reusable workflow is valid by the schema of GitHub's workflows."""
    done = check_schema("github-workflows", GITHUB)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("timeout-minutes: 5", "timeout-minuts: 5"),
        ("    type: number", "    type: float"),
        ("      contents: read #", "      contents: admin #"),
        ("    runs-on: ubuntu-latest\n", ""),
    ],
)
def test_broken_github_workflow_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    """A misspelt key, a wrong type, an unknown permission or a missing machine is an error."""
    text = GITHUB.read_text()
    assert right in text
    path = tmp_path / "broken.yml"
    path.write_text(text.replace(right, wrong))
    assert check_schema("github-workflows", path).returncode == 1


def test_github_workflow_is_secure() -> None:
    """The security linter finds nothing: injection, loose permissions, unpinned actions."""
    done = zizmor(GITHUB)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "finding"),
    [
        ("rm -rf build\n", "rm -rf ${{ github.head_ref }}\n", "template-injection"),
        ("@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "@v6", "unpinned-uses"),
        ("          persist-credentials: false\n", "", "artipacked"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
    ],
)
def test_insecure_github_workflow_is_refused(
    tmp_path: Path, right: str, wrong: str, finding: str
) -> None:
    """An expression in a script, a loose tag, kept credentials or too many rights are found."""
    text = GITHUB.read_text()
    assert right in text
    path = tmp_path / "broken.yml"
    path.write_text(text.replace(right, wrong))
    done = zizmor(path)
    assert done.returncode != 0
    assert finding in done.stdout


def test_github_rights_are_least() -> None:
    """One job may write, to pull requests alone, and it runs nothing of the repository."""
    (workflow,) = documents(GITHUB.read_text())
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    assert jobs["gate"]["permissions"] == {"contents": "read"}
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]
    assert not [step for step in jobs["comment"]["steps"] if "checkout" in step.get("uses", "")]


def test_github_actions_are_pinned() -> None:
    """Every action stands at a full commit, with its version beside it."""
    lines = [line.strip() for line in GITHUB.read_text().splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert PINNED.fullmatch(line), line


def test_github_secret_is_seen_by_one_step() -> None:
    """Only the step that downloads the champion has its token, before others' code runs."""
    (workflow,) = documents(GITHUB.read_text())
    steps = workflow["jobs"]["gate"]["steps"]
    holders = [step["name"] for step in steps if "secrets." in json.dumps(step)]
    assert holders == ["Download the champion"]
    names = [step["name"] for step in steps]
    assert names.index("Download the champion") < names.index("Install headrace")


def test_gitlab_template_follows_its_schema(tmp_path: Path) -> None:
    """The header of inputs and the jobs are valid by GitLab's schema."""
    header = tmp_path / "header.yml"
    header.write_text(GITLAB.read_text().split("\n---\n")[0])
    for path in (header, write_jobs(tmp_path / "jobs.yml")):
        done = check_schema("gitlab-ci", path)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("exit_codes:", "exit_code:"),
        ("junit:", "junits:"),
        ("  stage: test", "  stag: test"),
    ],
)
def test_broken_gitlab_template_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    """A misspelt key in a job of GitLab is an error."""
    path = write_jobs(tmp_path / "jobs.yml")
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    assert check_schema("gitlab-ci", path).returncode == 1


def test_gitlab_inputs_are_all_used() -> None:
    """Every declared input is used, and every used one is declared."""
    header, body = GITLAB.read_text().split("\n---\n")
    declared = set(documents(header)[0]["spec"]["inputs"])
    assert set(re.findall(r"\$\[\[ inputs\.(\w+) \]\]", body)) == declared


def test_gitlab_lets_no_verdict_pass_with_a_warning() -> None:
    """Of all exit statuses only 4 is allowed, and the report is kept however the job ends."""
    job = interpolated()["headrace-gate-model"]
    assert job["allow_failure"] == {"exit_codes": [4]}
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"] == {"junit": "gate-report/junit.xml"}


def test_travis_file_follows_its_schema() -> None:
    """The file is valid by the schema of Travis, and holds no key but known ones."""
    done = check_schema("travis", TRAVIS)
    assert done.returncode == 0, done.stdout
    (content,) = documents(TRAVIS.read_text())
    assert set(content) <= TRAVIS_KEYS
    stages = {stage["name"] for stage in content["stages"]}
    for job in content["jobs"]["include"]:
        assert set(job) <= TRAVIS_JOB_KEYS
        assert job["stage"] in stages


@pytest.mark.parametrize(
    ("right", "wrong"), [("os: linux", "os: linucs"), ("language: python", "language: pyton")]
)
def test_broken_travis_file_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    """A value that Travis does not know is an error."""
    text = TRAVIS.read_text()
    assert right in text
    path = tmp_path / "broken.yml"
    path.write_text(text.replace(right, wrong))
    assert check_schema("travis", path).returncode == 1


@pytest.mark.parametrize("system", SYSTEMS)
def test_scripts_pass_shellcheck(system: str) -> None:
    """No script has a finding of shellcheck, in the shell that its system uses."""
    shell = "sh" if system == "jenkins" else "bash"
    found = scripts(system)
    assert len(found) >= 4
    for name, text in found.items():
        # Variables come from the environment; the runner's own options end what fails.
        done = shellcheck(text, shell)
        assert done.returncode == 0, f"{name}: {done.stdout}"


def test_broken_script_is_refused() -> None:
    """An unquoted argument and a missing end are findings of shellcheck."""
    text = script("github", "headrace bench gate")
    assert shellcheck(f"{text}\nrm $base\n", "bash").returncode == 1
    assert shellcheck(text.replace("esac", "", 1), "bash").returncode == 1


def test_defaults_agree() -> None:
    """Every template installs the torch that headrace declares, and starts from the same limits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    torch = next(
        each for each in project["optional-dependencies"]["compiler"] if each.startswith("torch")
    )
    for path in (GITHUB, GITLAB, JENKINS, TRAVIS):
        text = path.read_text()
        assert torch in text, path
        assert "headrace[cpu,bench]" in text, path
        assert "https://download.pytorch.org/whl/cpu" in text, path


def test_guide_tells_of_every_input() -> None:
    """Each input of a template has its line in the guide."""
    guide = GUIDE.read_text()
    for name in _inputs():
        assert f"`{name}`" in guide, name


def _inputs() -> Iterator[str]:
    (workflow,) = documents(GITHUB.read_text())
    called = workflow["on"]["workflow_call"]
    yield from (*called["inputs"], *called["secrets"])
    yield from documents(GITLAB.read_text())[0]["spec"]["inputs"]
    yield from re.findall(r"name: '(GATE_\w+)'", JENKINS.read_text())
    yield from re.findall(r"- (GATE_\w+)=", TRAVIS.read_text())

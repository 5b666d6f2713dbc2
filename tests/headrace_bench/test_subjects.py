"""What a gate compares is told apart by what it is, and refused where it cannot be compared."""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from bundles import GOOD, WEIGHT, linear_bundle, linear_model

from headrace.bundle.golden import GoldenCase, encode_cases
from headrace.bundle.open import Bundle, open_bundle
from headrace.errors import MissingError, UsageError
from headrace_bench.accuracy import evaluation_accuracy, golden_agreement, judge_points
from headrace_bench.subjects import kind_of, open_subjects

ROOT = Path(__file__).parents[2]
RECIPE = """
import numpy as np
from headrace_compiler.recipe import Recipe
from headrace.tensors import TensorSpec

def samples():
    yield {{"x": np.ones((1, 3), np.float32)}}

def evaluation():
    for number in range({count}):
        yield {{"x": np.eye(3, dtype=np.float32)[[number % 3]]}}, {label}

recipe = Recipe(
    name="linear", version="1", model=lambda: None,
    inputs=(TensorSpec(name="x", datatype="FP32", shape=("batch", 3)),),
    samples=samples, evaluation=evaluation,
)
"""


def negative(directory: Path) -> Bundle:
    """A bundle with the inputs of `GOOD`, whose outputs have the other sign."""
    x = np.ones((1, 3), np.float32)
    case = GoldenCase(raw={}, inputs={"x": x}, outputs={"y": -(x @ WEIGHT)})
    model, golden = linear_model(-WEIGHT), encode_cases([case])
    return open_bundle(linear_bundle(directory, model=model, golden=golden))


def git(repository: Path, *arguments: str) -> str:
    """Runs git in a repository, as somebody."""
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(
        ["git", *who, *arguments],  # noqa: S607 - the git of whoever runs the tests
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the working directory with two revisions of something like headrace."""
    place = tmp_path / "repository"
    package = place / "runtime" / "headrace"
    package.mkdir(parents=True)
    git(place, "init", "--quiet")
    for content in ("one = 1\n", "one = 1\ntwo = 2\n"):
        (package / "cli.py").write_text(content)
        git(place, "add", ".")
        git(place, "commit", "--quiet", "-m", "a change")
    git(place, "tag", "v1", "HEAD~1")
    monkeypatch.chdir(place)
    return place


def test_kinds_are_told_apart(repository: Path, tmp_path: Path) -> None:
    """A bundle, a source tree, an environment and an interpreter are known by what they hold."""
    assert kind_of(str(GOOD)) == "bundle"
    assert kind_of(str(repository)) == "tree"
    assert kind_of(".") == "tree"
    assert kind_of(sys.prefix) == "install"
    assert kind_of(sys.executable) == "install"
    assert kind_of("v1") == "revision"
    with pytest.raises(UsageError, match="no bundle, no Python environment"):
        kind_of(str(tmp_path))


def test_revisions_are_checked_out_and_go_again(repository: Path, tmp_path: Path) -> None:
    """Each revision stands in a folder of its own as long as it is measured."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_subjects("v1", "HEAD", GOOD, scratch) as (base, head):
        assert base.name == f"v1 ({git(repository, 'rev-parse', 'v1')[:12]})"
        assert (base.paths[0] / "headrace" / "cli.py").read_text() == "one = 1\n"
        assert (head.paths[0] / "headrace" / "cli.py").read_text() == "one = 1\ntwo = 2\n"
        assert base.size_bytes < head.size_bytes
    assert list(scratch.iterdir()) == []
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_working_tree_is_measured_as_it_stands(repository: Path, tmp_path: Path) -> None:
    """A source tree is taken with what is not committed yet."""
    (repository / "runtime" / "headrace" / "cli.py").write_text("three = 3\n")
    with open_subjects("HEAD", ".", GOOD, tmp_path) as (_, head):
        assert (head.paths[0] / "headrace" / "cli.py").read_text() == "three = 3\n"


def test_an_installed_version_is_asked_for_its_size(tmp_path: Path) -> None:
    """An environment and its interpreter are one subject; one without headrace is none."""
    with open_subjects(sys.prefix, sys.executable, GOOD, tmp_path) as (base, head):
        assert base.size_bytes == head.size_bytes > 10_000
        assert base.paths == ()
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False)
    with (
        pytest.raises(MissingError, match="has no headrace"),
        open_subjects(str(bare), sys.prefix, GOOD, tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("base", "head", "bundle", "sentence"),
    [
        (str(GOOD), "HEAD", None, "only be compared with a bundle"),
        (str(GOOD), str(GOOD), GOOD, "--bundle is for two versions"),
        ("HEAD", "HEAD", None, "need something to serve"),
        ("HEAD", "no-such-revision", GOOD, "there is no such revision"),
        ("HEAD", "--output=x", GOOD, "there is no such revision"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    repository: Path, tmp_path: Path, base: str, head: str, bundle: Path | None, sentence: str
) -> None:
    """Unlike kinds, a missing bundle and an unknown revision each have their sentence."""
    assert repository.exists()
    with (
        pytest.raises(UsageError, match=sentence),
        open_subjects(base, head, bundle, tmp_path / "scratch"),
    ):
        pass


def test_two_bundles_that_answer_alike_agree(tmp_path: Path) -> None:
    """The share of golden rows that agree is 1 for a copy, and a regression when one differs."""
    good = open_bundle(GOOD)
    same = golden_agreement(good, good)
    assert (same.head, same.verdict) == (1.0, "no difference shown")
    other = negative(tmp_path)
    worse = golden_agreement(good, other)
    assert worse.head < 1.0
    assert worse.verdict == "regressed"


@pytest.mark.parametrize(("label", "accuracy"), [("3", 1.0), ("0", 0.0), ("[3]", 1.0)])
def test_accuracy_is_that_of_the_evaluation_data(
    tmp_path: Path, label: str, accuracy: float
) -> None:
    """Top-1 accuracy of both on the recipe's evaluation data, and the verdict on their difference.

    Every row of the weight has its largest value in column 3, and its negative in column 0.
    """
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(count=60, label=label))
    good, other = open_bundle(GOOD), negative(tmp_path)
    found = evaluation_accuracy(good, other, recipe, points=0.5)
    assert (found.base, found.head) == (accuracy, 1 - accuracy)
    assert found.verdict == ("regressed" if accuracy == 1.0 else "improved")
    assert evaluation_accuracy(good, good, recipe, points=0.5).verdict == "no difference shown"


def test_evaluation_data_is_needed(tmp_path: Path) -> None:
    """Empty data, and labels that do not fit the rows, are errors."""
    good, recipe = open_bundle(GOOD), tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(count=0, label="1"))
    with pytest.raises(UsageError, match="is empty"):
        evaluation_accuracy(good, good, recipe, points=0.5)
    recipe.write_text(RECIPE.format(count=1, label="[1, 2]"))
    with pytest.raises(UsageError, match="1 rows has 2 labels"):
        evaluation_accuracy(good, good, recipe, points=0.5)


@pytest.mark.parametrize(
    ("gain", "low", "high", "verdict"),
    [
        (-0.02, -0.03, -0.01, "regressed"),
        (0.02, 0.01, 0.03, "improved"),
        (0.0, -0.004, 0.004, "no difference shown"),
        (-0.01, -0.03, 0.01, "too noisy to say"),
    ],
)
def test_points_are_judged_as_ratios_are(
    gain: float, low: float, high: float, verdict: str
) -> None:
    """Half a point counts where the interval leaves 0 out."""
    assert judge_points(gain, low, high, 0.005) == verdict

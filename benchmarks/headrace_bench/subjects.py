"""What a gate compares: bundles, installed versions, source trees, or Git revisions of headrace."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headrace.bundle.open import Bundle, open_bundle
from headrace.errors import CheckError, MissingError, UsageError

Kind = Literal["bundle", "install", "tree", "revision"]
_PACKAGE = Path("runtime") / "headrace"


@dataclass(frozen=True)
class Subject:
    """One side of a gate.

    Attributes:
        name: As the user called it; a revision with its commit.
        python: The interpreter that serves.
        paths: Put before everything else on its import path.
        bundle: What it serves.
        size_bytes: Of the bundle, or of the runtime's sources.
    """

    name: str
    kind: Kind
    python: Path
    bundle: Bundle
    size_bytes: int
    paths: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def open_subjects(
    base: str, head: str, bundle: Path | None, scratch: Path
) -> Iterator[tuple[Subject, Subject]]:
    """The two sides of a gate; checked-out revisions go when the context ends.

    Args:
        base: A bundle, the Python (or the environment) of an installed headrace, a source tree, or
            a Git revision of the repository in the working directory.
        head: As `base`, and of the same kind: two bundles, or two versions of headrace.
        bundle: What two versions of headrace serve.
        scratch: Where revisions are checked out.

    Raises:
        UsageError: They cannot be compared, or one names nothing.
    """
    kinds = {kind_of(base), kind_of(head)}
    if "bundle" in kinds and len(kinds) > 1:
        raise UsageError("gate.kinds", "a bundle can only be compared with a bundle")
    if kinds == {"bundle"}:
        if bundle is not None:
            raise UsageError("gate.bundle", "--bundle is for two versions of headrace")
        yield _bundle(base), _bundle(head)
        return
    if bundle is None:
        raise UsageError(
            "gate.bundle",
            "two versions of headrace need something to serve",
            "--bundle NAME-VERSION.bundle",
        )
    with ExitStack() as stack:
        served = open_bundle(bundle)
        sides = [
            stack.enter_context(_version(what, served, scratch / side))
            for side, what in (("base", base), ("head", head))
        ]
        yield sides[0], sides[1]


def kind_of(what: str) -> Kind:
    """What a side of a gate names; what is no file is taken for a Git revision."""
    path = Path(what)
    if (path / "headrace.json").is_file():
        return "bundle"
    if (path / _PACKAGE).is_dir():
        return "tree"
    if (path / "bin" / "python").exists() or (path.is_file() and os.access(path, os.X_OK)):
        return "install"
    if path.exists() and what not in {".", ""}:
        raise UsageError(
            "gate.subject",
            f"{what} is no bundle, no Python environment and no source tree of headrace",
        )
    return "revision"


def _bundle(what: str) -> Subject:
    opened = open_bundle(Path(what))
    size = sum(entry.size for entry in opened.manifest.files.values())
    return Subject(what, "bundle", Path(sys.executable), opened, size)


@contextmanager
def _version(what: str, bundle: Bundle, checkout: Path) -> Iterator[Subject]:
    kind = kind_of(what)
    if kind == "install":
        path = Path(what)
        python = (path / "bin" / "python" if path.is_dir() else path).absolute()
        yield Subject(what, kind, python, bundle, _installed_size(python))
    elif kind == "tree":
        yield _tree(what, kind, Path(what).resolve(), bundle)
    else:
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{what}^{{commit}}")
        _git("worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            if not (checkout / _PACKAGE).is_dir():
                raise UsageError("gate.subject", f"revision {what} holds no {_PACKAGE}")
            yield _tree(f"{what} ({commit[:12]})", kind, checkout, bundle)
        finally:
            _git("worktree", "remove", "--force", str(checkout))


def _tree(name: str, kind: Kind, root: Path, bundle: Bundle) -> Subject:
    sources = root / _PACKAGE
    size = sum(path.stat().st_size for path in sources.rglob("*.py"))
    return Subject(name, kind, Path(sys.executable), bundle, size, (sources.parent,))


def _installed_size(python: Path) -> int:
    script = (
        "import pathlib, headrace;"
        "print(sum(p.stat().st_size for p in pathlib.Path(headrace.__path__[0]).rglob('*.py')))"
    )
    done = subprocess.run(  # noqa: S603 - the interpreter that the user named
        [python, "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise MissingError("gate.install", f"{python} has no headrace: {said}")
    return int(done.stdout)


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - git, with a revision that cannot be taken for an option
        ["git", *arguments],  # noqa: S607 - the user's git
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = done.stderr.strip() or "there is no such revision"
        kind = CheckError if arguments[0] == "worktree" else UsageError
        raise kind("gate.revision", f"git {arguments[0]} {arguments[-1]}: {said}")
    return done.stdout.strip()

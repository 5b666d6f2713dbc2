"""From the start of a server to its first right answer, and how large the edge install is.

headrace's edge is started from an environment that holds `headrace[cpu]` and nothing else, which
is built for this; Ray Serve from the environment this runs in. So is what is compared with Numba's
JIT, the native library's side too: the environment is to make no difference.
"""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from headrace.bundle.open import Bundle
from headrace.hardware import Hardware, installed_version
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace_bench.contest import Contest
from headrace_bench.peers.serving import serving_contestants
from headrace_bench.process import Contestant
from headrace_bench.result import CaseResult, Metric, Status
from headrace_bench.suites.kernels import SIZES, kernel_files, kernel_library
from headrace_bench.suites.options import SuiteOptions
from headrace_bench.suites.serving import (
    SERVED,
    Way,
    headrace_contestant,
    serving_case,
    tiny_bundle,
)

STARTS = "headrace_bench.load.served:open_starts"
INSTALL = "edge-install"
IMAGE = "edge-first-image"
TENSOR = "first-tensor"
BANNED = ("torch", "onnx", "numba", "ray")
"""What an edge is to be without."""
_SOURCE = Path(__file__).parents[3]
_JIT = (sys.executable, "-P", "-m", "headrace_bench.load.jit")
_NUMBA_CACHE = "NUMBA_CACHE_DIR"
_WAYS = {"edge-first-answer": Way("edge", "http"), "ray-first-answer": Way("ray", "http")}


@dataclass(frozen=True)
class EdgeInstall:
    """An environment with `headrace[cpu]` alone.

    Attributes:
        missing: Why there is none; empty if there is.
    """

    directory: Path
    missing: str

    @property
    def program(self) -> Path:
        """Its `headrace`."""
        return self.directory / "bin" / "headrace"


def contests(options: SuiteOptions) -> list[Contest]:
    """One case a layout; each block of it is one complete start, or more.

    A bundle that prepares images natively is started beside Numba's JIT, too.

    Raises:
        MissingError: The tiny model cannot be compiled, since the compiler is not installed.
    """
    found, bundle = [], options.bundle
    if fnmatch(TENSOR, options.case):
        found.append(_first_tensor(options.scratch))
    if bundle is not None and _has_image_kernels(bundle) and fnmatch(IMAGE, options.case):
        found.append(_first_image(bundle, options.scratch))
    wanted = {case: way for case, way in _WAYS.items() if fnmatch(case, options.case)}
    if wanted:
        served = bundle or tiny_bundle(options.scratch)
        found += [_contest(case, way, served, options) for case, way in wanted.items()]
    return found


def results(
    options: SuiteOptions, hardware: Hardware, progress: Callable[[str], None]
) -> list[CaseResult]:
    """The size of the edge install in megabytes: all files of its packages, pip's among them."""
    if not fnmatch(INSTALL, options.case):
        return []
    progress(f"{INSTALL}: weighing")
    begin, started = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    install = install_edge(options.scratch / "edge")
    status, reason = _judged(install)
    metrics: tuple[Metric, ...] = ()
    if status == "ok":
        size = round(size_mb(install.directory / "lib"), 1)
        metrics = (Metric(name="size", value=size, unit="MB"),)
    return [
        CaseResult(
            suite="coldstart",
            case=INSTALL,
            contestant="headrace",
            status=status,
            reason=reason,
            parameters={"without": ", ".join(BANNED)},
            metrics=metrics,
            fingerprint=hardware.fingerprint,
            processor=hardware.processor,
            versions={"headrace": installed_version("headrace") or ""},
            seconds=round(time.perf_counter() - begin, 3),
            started=started,
        )
    ]


def install_edge(directory: Path, source: Path = _SOURCE) -> EdgeInstall:
    """Builds the environment, once for a directory; what is in the way is told in `missing`."""
    note = directory.with_suffix(".missing")
    if note.exists():
        return EdgeInstall(directory, note.read_text())
    missing = "" if (directory / "bin" / "headrace").exists() else _install(directory, source)
    if missing:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(missing)
    return EdgeInstall(directory, missing)


def banned_packages(install: EdgeInstall) -> list[str]:
    """What an install holds and should not."""
    probe = f"import importlib.util as u; print(*[m for m in {BANNED} if u.find_spec(m)])"
    return _asked(install, probe).split()


def size_mb(directory: Path) -> float:
    """What the files of a directory take, in megabytes (10^6 bytes)."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def _first_tensor(scratch: Path) -> Contest:
    """A process's first prepared image: by the native library, and compiled there by Numba."""
    size = SIZES[0]
    arguments = {**kernel_files(scratch, size), "library": str(kernel_library(scratch))}
    native = Contestant(
        name="headrace",
        factory="headrace_bench.load.first_tensor:open_first_tensor",
        arguments={**arguments, "way": "native"},
        versions={each: installed_version(each) or "" for each in ("headrace", "numpy")},
    )
    jit = replace(native, arguments={**arguments, "way": "jit"})
    return Contest(
        suite="coldstart",
        case=TENSOR,
        contestants=(native, *_by_numba(jit, scratch / TENSOR)),
        parameters={"height": size.height, "width": size.width},
    )


def _first_image(bundle: Bundle, scratch: Path) -> Contest:
    """A server's first right answer to an image: the same server, its image kernel made as above.

    All have one home, and with it one variant and one prepared graph.
    """
    way, folder = Way("edge", "http", image=True), scratch / IMAGE
    native = headrace_contestant(bundle, way, folder)
    jit = headrace_contestant(bundle, way, folder, _JIT)
    return Contest(
        suite="coldstart",
        case=IMAGE,
        contestants=tuple(map(_started_again, (native, *_by_numba(jit, folder)))),
        parameters={"model": bundle.label},
        bundle=bundle.digest,
    )


def _by_numba(contestant: Contestant, folder: Path) -> tuple[Contestant, Contestant]:
    """A contestant that has Numba compile at each start, and one that finds it in Numba's cache."""
    names = {"numba-jit": "", "numba-cached": str(folder / "numba")}
    packages = {each: installed_version(each) or "" for each in ("numba", "llvmlite")}
    jit, cached = (
        replace(
            contestant,
            name=name,
            environment={_NUMBA_CACHE: cache},
            versions={**contestant.versions, **packages},
        )
        for name, cache in names.items()
    )
    return jit, cached


def _has_image_kernels(bundle: Bundle) -> bool:
    manifest = bundle.manifest
    return isinstance(manifest.preprocessing, ImagePreprocessing) and bool(manifest.kernels)


def _contest(case: str, way: Way, bundle: Bundle, options: SuiteOptions) -> Contest:
    folder = options.scratch / case
    headrace = headrace_contestant(bundle, way, folder)
    if way.layout == "edge":
        headrace = _from_install(bundle, way, folder, install_edge(options.scratch / "edge"))
    asked = serving_case(bundle, way, folder)
    peers = [] if asked is None else serving_contestants(asked, options)
    return Contest(
        suite="coldstart",
        case=case,
        contestants=tuple(map(_started_again, (headrace, *peers))),
        parameters={"model": bundle.label},
        bundle=bundle.digest,
    )


def _from_install(bundle: Bundle, way: Way, folder: Path, install: EdgeInstall) -> Contestant:
    found = headrace_contestant(bundle, way, folder, (str(install.program),))
    if install.missing:
        return replace(found, missing=install.missing)
    return replace(found, versions=_versions(install, tuple(found.versions)))


def _versions(install: EdgeInstall, packages: Sequence[str]) -> dict[str, str]:
    script = (
        "import json, sys; from importlib.metadata import version;"
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    versions: dict[str, str] = json.loads(_asked(install, script, *packages))
    return versions


def _asked(install: EdgeInstall, script: str, *words: str) -> str:
    """What a script prints in an install."""
    python = install.directory / "bin" / "python"
    return subprocess.run(  # noqa: S603 - the environment that was just built
        [python, "-I", "-c", script, *words], capture_output=True, text=True, check=True
    ).stdout


def _started_again(contestant: Contestant) -> Contestant:
    """The same server, started for each answer; what is no such server stays as it is."""
    served = contestant.factory == SERVED
    return replace(contestant, factory=STARTS) if served else contestant


def _judged(install: EdgeInstall) -> tuple[Status, str]:
    if install.missing:
        return "missing", install.missing
    banned = banned_packages(install)
    return ("failed", f"the edge install holds {', '.join(banned)}") if banned else ("ok", "")


def _install(directory: Path, source: Path) -> str:
    """Builds the environment; returns what was in the way."""
    constraints = source / "constraints.txt"
    if not (source / "pyproject.toml").is_file() or not constraints.is_file():
        return "the edge install is built from headrace's source tree, which is not here"
    venv.create(directory, with_pip=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(  # noqa: S603 - pip, for headrace's own source tree
        [*pip, "install", "--quiet", "--constraint", str(constraints), f"{source}[cpu]"],
        capture_output=True,
        text=True,
        check=False,
        env=kept,
    )
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        return f"pip could not build the edge install: {said}"
    return ""

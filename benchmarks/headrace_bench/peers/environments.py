"""The peers' environments: one each under HEADRACE_HOME, built on request and by nothing else."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal

from headrace.errors import MissingError, UsageError

State = Literal["installed", "not installed", "out of date", "headrace's own"]
"""`out of date`: it was installed with other requirements than this headrace's."""

MODULES = (
    "headrace_bench.peers.pillow",
    "headrace_bench.peers.opencv",
    "headrace_bench.peers.torch_resize",
    "headrace_bench.peers.albumentations",
    "headrace_bench.peers.onnxruntime",
    "headrace_bench.peers.openvino",
    "headrace_bench.peers.eager",
    "headrace_bench.peers.torch_compile",
    "headrace_bench.peers.fastapi_app",
    "headrace_bench.peers.litserve_app",
    "headrace_bench.peers.bentoml_app",
    "headrace_bench.peers.mlserver_app",
    "headrace_bench.peers.pytriton_app",
    "headrace_bench.peers.ray_serve_app",
    "headrace_bench.peers.floors",
)
"""The file of every peer, which says its NAME, its SUITES and its REQUIREMENTS."""
_STAMP = "installed.sha256"
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Peer:
    """Something that headrace is measured beside.

    Attributes:
        module: The file that makes its workloads.
        suites: In which it takes part.
        requirements: Exact pins; empty where it runs in headrace's own environment.
        environment: Variables that its processes need.
    """

    name: str
    module: str
    suites: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PeerEnvironment:
    """Where a peer's contestants run, as it was found.

    Attributes:
        python: The interpreter.
        missing: Why there is none; empty if there is.
        versions: Of the packages that the peer asks for.
    """

    python: Path
    missing: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class PeerRow:
    """A peer, for a list of them; `size_mb` is 0 where nothing is installed."""

    name: str
    suites: tuple[str, ...]
    state: State
    size_mb: float


def _read(module: str) -> Peer:
    # Not getattr: a module may answer for names that it does not hold.
    said = vars(import_module(module))
    return Peer(
        name=said["NAME"],
        module=module,
        suites=said["SUITES"],
        requirements=said["REQUIREMENTS"],
        environment=said.get("ENVIRONMENT", {}),
    )


PEERS = tuple(_read(module) for module in MODULES)


def find_peer(name: str) -> Peer:
    """The peer of a name.

    Raises:
        UsageError: There is none.
    """
    for peer in PEERS:
        if peer.name == name:
            return peer
    known = ", ".join(peer.name for peer in PEERS)
    raise UsageError("bench.peer", f"there is no peer '{name}'", f"peers are {known}")


def select_peers(suite: str, names: Sequence[str]) -> tuple[Peer, ...]:
    """The peers of a suite that are among `names`, in the order of `PEERS`.

    Raises:
        UsageError: One of the names is no peer's.
    """
    wanted = {find_peer(name).name for name in names}
    return tuple(peer for peer in PEERS if suite in peer.suites and peer.name in wanted)


def state_of(peer: Peer, home: Path) -> State:
    """Whether a peer's environment stands, whole and with these requirements."""
    if not peer.requirements:
        return "headrace's own"
    place = _place(peer, home)
    stamp = place / _STAMP
    if not stamp.is_file() or not _python(place).exists():
        return "not installed"
    return "installed" if stamp.read_text() == _wanted(peer) else "out of date"


def contestant_environment(peer: Peer, home: Path) -> Path | str:
    """The interpreter in which a peer's contestants run, or the sentence why there is none."""
    state = state_of(peer, home)
    if state == "headrace's own":
        return Path(sys.executable)
    if state == "installed":
        return _python(_place(peer, home))
    said = "is not installed" if state == "not installed" else "is installed in other versions"
    return f"peer '{peer.name}' {said}: headrace bench peers install {peer.name}"


def inspect_environment(peer: Peer, home: Path) -> PeerEnvironment:
    """A peer's interpreter with the versions in it, or the sentence why there is none."""
    python = contestant_environment(peer, home)
    if isinstance(python, str):
        return PeerEnvironment(Path(sys.executable), python, {})
    return PeerEnvironment(python, "", installed_versions(python, package_names(peer.requirements)))


def install(peer: Peer, home: Path, progress: Callable[[str], None] = lambda _: None) -> None:
    """Builds a peer's environment, or leaves it as it is where it stands already.

    Raises:
        MissingError: It cannot be built; nothing is left of it.
    """
    if state_of(peer, home) in {"installed", "headrace's own"}:
        progress(f"peer '{peer.name}' needs no installation")
        return
    place = _place(peer, home)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        progress(f"peer '{peer.name}': making its environment")
        _make_environment(peer, place)
        progress(f"peer '{peer.name}': installing {', '.join(peer.requirements)}")
        _pip_install(peer, place)
        (place / _STAMP).write_text(_wanted(peer))  # last: without it nothing is installed
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def list_peers(home: Path) -> tuple[PeerRow, ...]:
    """Every peer, and what is there of it."""
    return tuple(
        PeerRow(peer.name, peer.suites, state_of(peer, home), round(_size_mb(_place(peer, home))))
        for peer in PEERS
    )


def installed_versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages in an interpreter's environment, without those it does not have.

    Raises:
        MissingError: The interpreter does not run.
    """
    if not packages:
        return {}
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter of an environment made here
            [python, "-I", "-c", _VERSIONS, *packages], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError(
            "bench.interpreter", f"the interpreter {python} does not run: {_said(error)}"
        ) from error
    found: dict[str, str] = json.loads(done.stdout)
    return found


def package_names(requirements: Sequence[str]) -> tuple[str, ...]:
    """The packages that requirements name, without extras and versions."""
    return tuple(re.split(r"[\[=<>~!; ]", requirement)[0] for requirement in requirements)


def _place(peer: Peer, home: Path) -> Path:
    return home / "bench" / "peers" / peer.name


def _python(place: Path) -> Path:
    return place / "bin" / "python"


def _wanted(peer: Peer) -> str:
    version = f"python {sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256("\n".join((version, *peer.requirements)).encode()).hexdigest()


def _make_environment(peer: Peer, place: Path) -> None:
    try:
        venv.create(place, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError(
            "bench.peer-install",
            f"peer '{peer.name}' could not be installed: no environment at {place}: {_said(error)}",
            "this Python needs its own venv and ensurepip modules, and room on the disk",
        ) from error


def _pip_install(peer: Peer, place: Path) -> None:
    # Isolated, or what PYTHONPATH names would pass for installed.
    command = [str(_python(place)), "-I", *_PIP, *peer.requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pip
    if done.returncode:
        raise MissingError(
            "bench.peer-install",
            f"peer '{peer.name}' could not be installed: {_last(done.stderr + done.stdout)}",
            "pip takes its index from its own settings: pip config list",
        )


def _said(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    output = error.stderr or error.output or b""
    return _last(output if isinstance(output, str) else output.decode(errors="replace"))


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _size_mb(place: Path) -> float:
    """What the files below a directory take, in megabytes (10^6 bytes); links count as links."""
    sizes = [
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(place)
        for name in names
    ]
    return sum(sizes) / 1e6

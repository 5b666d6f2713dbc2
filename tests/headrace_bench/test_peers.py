"""The frame of the peers: who they are, their environments, and what they share."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import MissingError, UsageError
from headrace.tensors import Array
from headrace_bench.peers import check_output, read_arrays, write_arrays
from headrace_bench.peers.environments import (
    PEERS,
    Peer,
    contestant_environment,
    find_peer,
    inspect_environment,
    install,
    installed_versions,
    list_peers,
    package_names,
    select_peers,
    state_of,
)


def write_wheel(directory: Path, version: str) -> str:
    """A wheel of one empty package, as an exact requirement."""
    path = directory / f"tiny-{version}-py3-none-any.whl"
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return f"tiny @ {path.as_uri()}"


def make_peer(*requirements: str) -> Peer:
    """A peer that is no real one."""
    return Peer("tiny", "headrace_bench.peers.pillow", ("kernels",), requirements)


def test_names_are_unique_and_pins_exact() -> None:
    """Every peer has a name of its own, takes part in a suite, and pins what it stands on."""
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        assert peer.suites, peer.name
        assert all("==" in requirement for requirement in peer.requirements), peer.name


def test_peers_are_read_without_what_they_stand_on() -> None:
    """Reading every peer's file imports none of the peers' packages."""
    packages = {"torch", "onnxruntime", "ray", "grpc", "fastapi", "openvino", "cv2", "PIL"}
    show = f"import sys, headrace_bench.peers.environments; print({packages!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_selection_keeps_the_order_and_refuses_strangers() -> None:
    """Peers of a suite are chosen by name, in the order of the list; an unknown name is refused."""
    chosen = select_peers("kernels", ["opencv", "pillow", "onnxruntime"])
    assert [peer.name for peer in chosen] == ["pillow", "opencv"]
    with pytest.raises(UsageError, match="no peer 'nobody'") as caught:
        select_peers("kernels", ["nobody"])
    assert "pillow" in caught.value.hint


def test_peers_without_requirements_run_in_our_environment(tmp_path: Path) -> None:
    """A peer that asks for nothing runs where headrace runs, and needs no installation."""
    eager = find_peer("eager")
    assert contestant_environment(eager, tmp_path) == Path(sys.executable)
    install(eager, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_peer_says_how_to_install_it(tmp_path: Path) -> None:
    """A peer that is not installed is missing with a sentence that holds the command."""
    said = "peer 'openvino' is not installed: headrace bench peers install openvino"
    assert contestant_environment(find_peer("openvino"), tmp_path) == said
    assert inspect_environment(find_peer("openvino"), tmp_path).missing == said
    rows = {row.name: row for row in list_peers(tmp_path)}
    assert (rows["openvino"].state, rows["openvino"].size_mb) == ("not installed", 0)
    assert rows["eager"].state == "headrace's own"


def test_interrupted_install_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """An environment with an interpreter and no stamp is not installed."""
    peer = make_peer("tiny==1")
    python = tmp_path / "bench" / "peers" / "tiny" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert state_of(peer, tmp_path) == "not installed"


@pytest.mark.install
def test_install_builds_an_environment_that_follows_its_requirements(tmp_path: Path) -> None:
    """An environment is built once, built anew for other requirements, and repaired."""
    first, second = (make_peer(write_wheel(tmp_path, version)) for version in ("1.0", "2.0"))
    said: list[str] = []
    place = tmp_path / "bench" / "peers" / "tiny"
    install(first, tmp_path, said.append)
    python = contestant_environment(first, tmp_path)
    assert python == place / "bin" / "python"
    assert inspect_environment(first, tmp_path).versions == {"tiny": "1.0"}
    (place / "untouched").touch()
    install(first, tmp_path, said.append)
    assert said[-1] == "peer 'tiny' needs no installation"
    assert (place / "untouched").exists()
    wrong = "peer 'tiny' is installed in other versions: headrace bench peers install tiny"
    assert contestant_environment(second, tmp_path) == wrong
    install(second, tmp_path)
    assert inspect_environment(second, tmp_path).versions == {"tiny": "2.0"}
    assert not (place / "untouched").exists()


@pytest.mark.install
def test_failed_install_leaves_nothing(tmp_path: Path) -> None:
    """A requirement that cannot be had ends with pip's last line, and nothing stays."""
    peer = make_peer(f"tiny @ {(tmp_path / 'tiny-1.0-py3-none-any.whl').as_uri()}")
    with pytest.raises(MissingError, match=r"peer 'tiny' could not be installed: ERROR: .*tiny"):
        install(peer, tmp_path)
    assert list((tmp_path / "bench" / "peers").iterdir()) == []


def test_versions_are_those_of_the_interpreter(tmp_path: Path) -> None:
    """Versions are read in the peer's interpreter; what it does not have is left out."""
    found = installed_versions(Path(sys.executable), ["numpy", "no-such-package"])
    assert found == {"numpy": np.__version__}
    with pytest.raises(MissingError, match="does not run"):
        installed_versions(tmp_path / "python", ["numpy"])


def test_requirements_name_packages() -> None:
    """A requirement's package is its name without extras, versions and addresses."""
    requirements = ("uvicorn[standard]==0.54.0", "numpy==2.4.6", "tiny @ file:///tiny.whl")
    assert package_names(requirements) == ("uvicorn", "numpy", "tiny")


def test_arrays_keep_names_and_order(tmp_path: Path) -> None:
    """Arrays come back as they were written, also under names that NumPy's writer keeps."""
    arrays: dict[str, Array] = {
        "file": np.arange(3),
        "a/b.c": np.ones((2, 2), np.float32),
        "arr_0": np.array([True]),
    }
    write_arrays(tmp_path / "arrays.npz", arrays)
    found = read_arrays(str(tmp_path / "arrays.npz"))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (np.array([1.0, 2.1]), "output 'y' is off by 0.05 of its largest value"),
        (np.array([1.0, np.nan]), "output 'y' is off by nan"),
        (np.array([1.0]), r"output 'y' has shape \[1\], not \[2\]"),
    ],
)
def test_wrong_outputs_are_refused(found: Array, said: str) -> None:
    """An output that is too far off, not a number, or of another shape is refused in a sentence."""
    reference = np.array([1.0, 2.0])
    check_output("y", reference + 1e-5, reference, 1e-4)
    with pytest.raises(SystemExit, match=said):
        check_output("y", found, reference, 1e-4)

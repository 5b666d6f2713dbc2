"""Writing a bundle: it appears whole or not at all, and equal input gives equal bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundles import GOOD, linear_bundle, linear_model, parts

from headrace.bundle.manifest import BuildRecord, Manifest
from headrace.bundle.open import open_bundle
from headrace.bundle.write import bundle_name, write_build_record, write_bundle
from headrace.engine.session import OrtSession
from headrace.errors import UsageError

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from bundles import linear_bundle
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    linear_bundle(Path(sys.argv[1]), golden=bytes(200_000), replace=True)
except OSError as error:
    sys.exit(f"refused: {error.errno}")
"""
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from bundles import linear_bundle
event, number = sys.argv[2], int(sys.argv[3])
def interrupt(name, arguments):
    global number
    if name == event and str(sys.argv[1]) in str(arguments[0]):
        number -= 1
        if number == 0:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
signal.signal(signal.SIGINT, signal.default_int_handler)
linear_bundle(Path(sys.argv[1]), description="new", replace=True)
"""


def _contents(root: Path) -> dict[str, bytes]:
    found = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    support = str(Path(__file__).parents[2] / "support")
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": support},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_written_bundle_opens(tmp_path: Path) -> None:
    """What was written opens under its name, with the digest that the writer told."""
    files, fields = parts(linear_model(), b"golden")
    path, digest = write_bundle(tmp_path / "a" / "b", Manifest.model_validate(fields), files)
    assert path == tmp_path / "a" / "b" / "linear-1.bundle"
    assert open_bundle(path).digest == digest
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208 - hidden names count too


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    """The same bundle written twice is the same, byte for byte."""
    first, second = (linear_bundle(tmp_path / name) for name in ("first", "second"))
    assert _contents(first) == _contents(second)
    assert open_bundle(first).digest == open_bundle(second).digest


def test_another_byte_gives_another_digest(tmp_path: Path) -> None:
    """Every part of the content is part of the identity."""
    digests = {
        open_bundle(path).digest
        for path in (
            linear_bundle(tmp_path / "a"),
            linear_bundle(tmp_path / "b", description="other"),
            linear_bundle(tmp_path / "c", golden=b"other"),
            linear_bundle(tmp_path / "d", model=b"other"),
        )
    }
    assert len(digests) == 4


def test_bundle_of_this_name_is_kept(tmp_path: Path) -> None:
    """Without leave to replace, what stands there is an error and stays."""
    path = linear_bundle(tmp_path)
    before = _contents(path)
    with pytest.raises(UsageError) as caught:
        linear_bundle(tmp_path, description="new")
    assert caught.value.code == "bundle.exists"
    assert _contents(path) == before


@pytest.mark.parametrize("kind", ["bundle", "file", "link", "dangling link"])
def test_what_stands_there_is_replaced_if_asked(tmp_path: Path, kind: str) -> None:
    """With leave, whatever has the name gives way, and a link is not followed."""
    target, elsewhere = tmp_path / bundle_name("linear", "1"), tmp_path / "elsewhere"
    if kind == "bundle":
        linear_bundle(tmp_path)
    elif kind == "file":
        target.write_text("old")
    else:
        if kind == "link":
            elsewhere.mkdir()
            (elsewhere / "kept").write_text("kept")
        target.symlink_to(elsewhere)
    path = linear_bundle(tmp_path, description="new", replace=True)
    assert open_bundle(path).manifest.description == "new"
    assert {entry.name for entry in tmp_path.iterdir()} <= {path.name, "elsewhere"}
    assert not elsewhere.exists() or (elsewhere / "kept").read_text() == "kept"


def test_manifest_describes_the_files(tmp_path: Path) -> None:
    """Files other than those that the manifest lists are a mistake of the caller."""
    files, fields = parts(linear_model(), b"golden")
    manifest = Manifest.model_validate(fields)
    with pytest.raises(ValueError, match="does not describe"):
        write_bundle(tmp_path, manifest, {**files, "model/fp32/more": b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_full_disk_leaves_nothing(tmp_path: Path, *, there: bool) -> None:
    """When the disk is full nothing new is left, and what stood there still stands."""
    before = _contents(linear_bundle(tmp_path)) if there else {}
    ended = _run(FULL_DISK, str(tmp_path))
    assert "refused: 27" in ended.stderr  # EFBIG
    assert _contents(tmp_path / "linear-1.bundle") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["linear-1.bundle"] * there


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("event", "number"),
    [("tempfile.mkdtemp", 1), ("os.mkdir", 3), ("open", 1), ("open", 3), ("os.rename", 1)],
)
def test_interrupt_leaves_the_old_or_nothing(
    tmp_path: Path, event: str, number: int, *, there: bool
) -> None:
    """Ctrl-C at any moment leaves what stood there before, or nothing, and no scraps."""
    before = _contents(linear_bundle(tmp_path)) if there else {}
    ended = _run(INTERRUPTED, str(tmp_path), event, str(number))
    assert ended.returncode == -signal.SIGINT, ended.stderr
    assert "KeyboardInterrupt" in ended.stderr
    assert _contents(tmp_path / "linear-1.bundle") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["linear-1.bundle"] * there


def test_interrupt_between_the_renames_restores_the_old(tmp_path: Path) -> None:
    """Ctrl-C after the old bundle was put aside puts it back."""
    before = _contents(linear_bundle(tmp_path))
    ended = _run(INTERRUPTED, str(tmp_path), "os.rename", "2")
    assert "KeyboardInterrupt" in ended.stderr
    assert _contents(tmp_path / "linear-1.bundle") in (
        before,
        {**_contents(linear_bundle(tmp_path / "other", description="new"))},
    )


def test_build_record_comes_beside_the_content(tmp_path: Path) -> None:
    """A build record is read back, and does not change the digest."""
    path = linear_bundle(tmp_path)
    digest = open_bundle(path).digest
    record = BuildRecord(commit="abc", fingerprint="x86_64-2c-0", seconds={"capture": 1.5})
    write_build_record(path, record)
    assert open_bundle(path).build_record() == record
    assert open_bundle(path).digest == digest
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_onnxruntime_opens_a_bundle_by_itself() -> None:
    """A bundle is an ONNX Runtime model package, which answers as our own session does."""
    context = onnxruntime.ModelPackageContext(str(GOOD))
    options = onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
    session = context.select_component("model", options).create_session()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    ours = OrtSession(GOOD / "model" / "fp32" / "model.onnx").run({"x": x})
    np.testing.assert_array_equal(session.run(["y"], {"x": x})[0], ours["y"])

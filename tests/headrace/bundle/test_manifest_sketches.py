"""Sketches in the manifest: what is listed is there, and what is there is listed."""

from typing import Any

import pytest
from bundles import linear_model, parts
from pydantic import ValidationError

from headrace.bundle.manifest import FileEntry, Manifest, SketchEntry, row_size
from headrace.tensors import TensorSpec

ENTRY = FileEntry(sha256="0" * 64, size=0)
SKETCH: dict[str, Any] = {
    "path": "sketches/input.x.0.bin",
    "role": "input",
    "tensor": "x",
    "kind": "feature",
    "feature": 0,
    "count": 3,
    "nan_count": 0,
    "low": -1.0,
    "high": 2.0,
}


def _manifest(
    *sketches: dict[str, Any], files: tuple[str, ...] | None = None, version: int = 2
) -> Manifest:
    given = parts(linear_model(), b"")[1]["files"]
    assert isinstance(given, dict)
    lying = {entry["path"] for entry in sketches} if files is None else files
    changes = {
        "schema_version": version,
        "sketches": tuple(SketchEntry(**entry) for entry in sketches),
        "files": {**given, **dict.fromkeys(lying, ENTRY)},
    }
    return Manifest.model_validate(parts(linear_model(), b"", **changes)[1])


def test_sketches_are_written_as_they_are_read() -> None:
    """A manifest with sketches, of empty tensors too, survives its spelling."""
    empty = {**SKETCH, "path": "sketches/output.y.3.bin", "role": "output", "tensor": "y"}
    empty |= {"feature": 3, "count": 0, "nan_count": 9, "low": None, "high": None}
    manifest = _manifest(SKETCH, empty)
    assert Manifest.model_validate_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensor": "z"}, "'z', which is no input"),
        ({"tensor": "x", "role": "output"}, "'x', which is no output"),
        ({"feature": 3}, "no feature 3 in a row of 'x'"),
        ({"path": "model/x.bin"}, "'model/x.bin' is not both"),
        ({"path": "sketches/../x.bin"}, "may leave the bundle"),
    ],
    ids=str,
)
def test_entry_fits_the_manifest(change: dict[str, Any], words: str) -> None:
    """A sketch is of a declared tensor and of a place in it, and lies under sketches/."""
    with pytest.raises(ValidationError, match=words):
        _manifest({**SKETCH, **change})


@pytest.mark.parametrize("files", [(), (SKETCH["path"], "sketches/more.bin")], ids=str)
def test_files_and_entries_agree(files: tuple[str, ...]) -> None:
    """A sketch without its file is refused, and so is a file under sketches/ without an entry."""
    with pytest.raises(ValidationError, match="is not both a sketch and among the files"):
        _manifest(SKETCH, files=files)


def test_one_path_holds_one_sketch() -> None:
    """Two entries may not share a file."""
    with pytest.raises(ValidationError, match="two sketches have one path"):
        _manifest(SKETCH, {**SKETCH, "feature": 1})


def test_version_1_has_no_sketches() -> None:
    """A manifest of schema version 1 has neither entries nor files under sketches/."""
    with pytest.raises(ValidationError, match="schema version 1 has no sketches"):
        _manifest(SKETCH, version=1)
    with pytest.raises(ValidationError, match="is not both"):
        _manifest(files=("sketches/x.bin",), version=1)
    assert b"sketches" not in _manifest(version=1).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "values"},
        {"feature": None},
        {"feature": -1},
        {"low": None},
        {"low": 3.0},
        {"count": 0},
        {"nan_count": -1},
        {"low": float("nan")},
        {"high": float("inf")},
        {"role": "label"},
    ],
    ids=str,
)
def test_entry_is_consistent(change: dict[str, Any]) -> None:
    """A kind, a place, counts and bounds that contradict each other are refused."""
    with pytest.raises(ValidationError):
        SketchEntry(**{**SKETCH, **change})


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (("batch", 2, 3), 6),
        (("batch",), 1),
        ((), 1),
        ((4, 3), 12),
        (("batch", "n"), None),
        (("n", 3), None),
        (("batch", 0), 0),
    ],
    ids=str,
)
def test_row_size(shape: tuple[int | str, ...], size: int | None) -> None:
    """A row's size is the product of its axes, and unknown where a request chooses one."""
    assert row_size(TensorSpec(name="x", datatype="FP32", shape=shape)) == size

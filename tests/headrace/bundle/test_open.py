"""Opening a bundle: what is not what it says is refused, each fault with a code of its own."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import ASSETS, GOOD, MODEL

from headrace.bundle.manifest import MAX_PATH
from headrace.bundle.open import open_bundle
from headrace.engine.model import load_model
from headrace.errors import BundleError, UsageError

DIGEST = "7ee835dfe042e59db8480709d0e2402a07653ce86cd32ac2dee52d3033db2005"
"""Of `good.bundle`. A digest is an identity: no later version may compute another for it."""
REFUSED_BY_OPEN = {
    "escaping": ("bundle.escaping", "may leave the bundle"),
    "extra": ("bundle.extra", "model/notes.txt"),
    "missing": ("bundle.missing", "golden/cases.safetensors is missing"),
    "no-manifest": ("bundle.no-manifest", "holds no headrace.json"),
    "not-json": ("bundle.manifest", "is not JSON"),
    "symlinked": ("bundle.symlink", "model/fp32/model.onnx is a symbolic link"),
    "tampered": ("bundle.tampered", "model/fp32/model.onnx was changed"),
    "truncated": ("bundle.truncated", "154 bytes where its manifest says 161"),
    "unknown-key": ("bundle.manifest", "colour: Extra inputs are not permitted"),
    "wrong-schema": ("bundle.schema-version", "schema version 99"),
    "wrong-type": ("bundle.manifest", "version: Input should be a valid string"),
}
REFUSED_BY_LOAD = {
    "broken-graph": ("bundle.graph", "cannot load model.onnx"),
    "external-data-escaping": ("bundle.graph", "escapes model directory"),
    "golden-mismatch": ("bundle.golden-mismatch", "output 'y' is off by 0.04"),
}
Change = Callable[[Path], object]


def test_every_asset_has_its_row() -> None:
    """The table of faults and the folder of broken bundles name the same."""
    found = {path.name.removesuffix(".bundle") for path in ASSETS.glob("*.bundle")}
    assert found == {"good", *REFUSED_BY_OPEN, *REFUSED_BY_LOAD}


def test_faults_can_be_told_apart() -> None:
    """No two faults are told with the same code and words."""
    told = [*REFUSED_BY_OPEN.values(), *REFUSED_BY_LOAD.values()]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("fault", REFUSED_BY_OPEN)
def test_broken_bundle_is_not_opened(fault: str) -> None:
    """A bundle whose files are not what its manifest says is refused, by its own code."""
    code, words = REFUSED_BY_OPEN[fault]
    with pytest.raises(BundleError) as caught:
        open_bundle(ASSETS / f"{fault}.bundle")
    assert caught.value.code == code
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("fault", REFUSED_BY_LOAD)
def test_lying_bundle_is_opened_and_not_loaded(fault: str) -> None:
    """A bundle whose files are what it says, and whose model is not, opens and does not load."""
    code, words = REFUSED_BY_LOAD[fault]
    bundle = open_bundle(ASSETS / f"{fault}.bundle")
    with pytest.raises(BundleError) as caught:
        load_model(bundle)
    assert caught.value.code == code
    assert words in caught.value.message


def test_good_bundle_opens_with_the_digest_it_always_had() -> None:
    """The digest of a bundle that an earlier version wrote is what it was."""
    bundle = open_bundle(GOOD)
    assert bundle.digest == DIGEST
    assert bundle.label == "linear 1"
    assert bundle.path.is_absolute()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The good bundle, to be changed."""
    return Path(shutil.copytree(GOOD, tmp_path / "copy.bundle"))


def test_absent_path_is_the_users_mistake(tmp_path: Path) -> None:
    """A path at which nothing stands is an error of usage."""
    with pytest.raises(UsageError, match="no bundle directory") as caught:
        open_bundle(tmp_path / "absent")
    assert caught.value.code == "bundle.not-found"


def test_file_is_no_bundle(copy: Path) -> None:
    """A plain file is an error of usage."""
    with pytest.raises(UsageError):
        open_bundle(copy / MODEL)


def test_link_to_a_bundle_is_no_bundle(copy: Path, tmp_path: Path) -> None:
    """A symbolic link may point elsewhere tomorrow, so it is an error of usage."""
    (tmp_path / "link").symlink_to(copy)
    with pytest.raises(UsageError):
        open_bundle(tmp_path / "link")


def test_what_lies_beside_the_content_is_no_fault(copy: Path) -> None:
    """A report, a signature, a build record and measurements leave the digest as it is."""
    for name in ("report.html", "model.sig", "build.json"):
        (copy / name).write_text("{}")
    (copy / "measured").mkdir()
    (copy / "measured" / "x86_64.json").write_text("{}")
    assert open_bundle(copy).digest == DIGEST


def _fifo(bundle: Path) -> None:
    os.mkfifo(bundle / "model" / "pipe")


def _fifo_outside_content(bundle: Path) -> None:
    (bundle / "measured").mkdir()
    os.mkfifo(bundle / "measured" / "pipe")


def _linked_directory(bundle: Path) -> None:
    (bundle / "measured").symlink_to("/etc")


def _linked_manifest(bundle: Path) -> None:
    (bundle / "headrace.json").rename(bundle / "report.html")
    (bundle / "headrace.json").symlink_to("report.html")


def _deep(bundle: Path) -> None:
    made = bundle / "measured"
    for _ in range(MAX_PATH // 50 + 1):
        made = made / ("d" * 50)
    made.mkdir(parents=True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_fifo, "bundle.extra"),
        (_fifo_outside_content, "bundle.extra"),
        (_linked_directory, "bundle.symlink"),
        (_linked_manifest, "bundle.symlink"),
        (_deep, "bundle.extra"),
        (lambda bundle: (bundle / "report.html.so").write_text("x"), "bundle.extra"),
        (lambda bundle: (bundle / "measured-not").write_text("x"), "bundle.extra"),
        (lambda bundle: (bundle / os.fsdecode(b"\xff")).write_text("x"), "bundle.extra"),
        (lambda bundle: (bundle / "model" / "a\nb").write_text("x"), "bundle.extra"),
        (lambda bundle: (bundle / MODEL).write_bytes(b""), "bundle.truncated"),
    ],
)
def test_what_does_not_belong_is_refused(copy: Path, change: Change, code: str) -> None:
    """Pipes, links, strange names and whatever else the manifest does not list are refused."""
    change(copy)
    with pytest.raises(BundleError) as caught:
        open_bundle(copy)
    assert caught.value.code == code


def test_manifest_that_is_a_pipe_is_no_manifest(copy: Path) -> None:
    """Opening does not wait for a pipe."""
    (copy / "headrace.json").unlink()
    os.mkfifo(copy / "headrace.json")
    with pytest.raises(BundleError) as caught:
        open_bundle(copy)
    assert caught.value.code == "bundle.no-manifest"


def test_manifest_without_end_is_not_read(copy: Path) -> None:
    """A manifest larger than any can be is refused by its size."""
    with (copy / "headrace.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="larger") as caught:
        open_bundle(copy)
    assert caught.value.code == "bundle.manifest"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"description": ""', '"description": "\udcff"', "is not JSON"),
        ('"description": ""', '"description": "\\ud800"', "does not fit"),
        ('"name": "linear"', '"name": "other", "name": "linear"', "'name' stands twice"),
        ('"files": {', '"files": {}, "files": {', "'files' stands twice"),
        ("1e-05", "NaN", "NaN is no JSON number"),
        ("1e-05", "1e999", "finite"),
        ('"seed": 0', f'"seed": {"9" * 5000}', "is not JSON"),
        ('"seed": 0', f'"seed": {"[" * 100_000}{"]" * 100_000}', "is not JSON"),
        ('"files": {', '"files": null, "more": {', "files: "),
        ('"files": {', '"files": ["a"], "more": {', "files: "),
    ],
    ids=range(10),
)
def test_hostile_json_is_refused(copy: Path, old: str, new: str, words: str) -> None:
    """JSON that two readers could take in two ways, or that is made to break one, is refused."""
    content = (GOOD / "headrace.json").read_text()
    assert old in content
    changed = content.replace(old, new, 1).encode(errors="surrogateescape")
    (copy / "headrace.json").write_bytes(changed)
    with pytest.raises(BundleError) as caught:
        open_bundle(copy)
    assert caught.value.code == "bundle.manifest"
    assert words in caught.value.message


@pytest.mark.parametrize("version", [0, 3, 1.0, True, "1", None, [], "x" * 9999], ids=range(8))
def test_schema_version_is_a_known_number(copy: Path, version: object) -> None:
    """What only resembles the schema version is another version, and told briefly."""
    _edit(copy, lambda content: content.update(schema_version=version))
    with pytest.raises(BundleError) as caught:
        open_bundle(copy)
    assert caught.value.code == "bundle.schema-version"
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "a/../../b", "..", "", "a//b", "a/./b", "C:\\x", "a\\..\\b", "é", "a\0", "a\n"],
)
def test_path_that_may_leave_the_bundle_is_refused(copy: Path, path: str) -> None:
    """Absolute, climbing, empty and odd paths are refused before anything looks at them."""
    _edit(copy, lambda content: content["files"].update({path: {"sha256": "0" * 64, "size": 0}}))
    with pytest.raises(BundleError) as caught:
        open_bundle(copy)
    assert caught.value.code == "bundle.escaping"


def test_endless_list_of_files_is_refused(copy: Path) -> None:
    """A manifest of more files than a bundle may hold is refused before they are looked at."""
    entry = {"sha256": "0" * 64, "size": 0}
    _edit(copy, lambda content: content["files"].update({f"f{n}": entry for n in range(10_001)}))
    with pytest.raises(BundleError, match="over 10000 files") as caught:
        open_bundle(copy)
    assert caught.value.code == "bundle.manifest"


def test_endless_directory_is_refused(copy: Path) -> None:
    """A bundle that holds more than a bundle may is refused while it is looked through."""
    (copy / "measured").mkdir()
    for number in range(10_001):
        (copy / "measured" / str(number)).touch()
    with pytest.raises(BundleError, match="over 10000 files") as caught:
        open_bundle(copy)
    assert caught.value.code == "bundle.extra"


@pytest.mark.parametrize("content", ["", "{", '{"commit": 1}', "[" * 9999], ids=range(4))
def test_broken_build_record_is_told(copy: Path, content: str) -> None:
    """A build record is no content; where it cannot be read, asking for it says so."""
    (copy / "build.json").write_text(content)
    bundle = open_bundle(copy)
    with pytest.raises(BundleError) as caught:
        bundle.build_record()
    assert caught.value.code == "bundle.build-record"


def test_bundle_without_a_build_record_has_none(copy: Path) -> None:
    """A bundle need not say where it was built."""
    assert open_bundle(copy).build_record() is None


def _edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((bundle / "headrace.json").read_bytes())
    change(content)
    (bundle / "headrace.json").write_text(json.dumps(content))

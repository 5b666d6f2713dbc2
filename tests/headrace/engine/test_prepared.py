"""Prepared graphs: the answers of their source, or made again; never a crash, never another's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from bundles import linear_model
from graphs import wide_model

from headrace.bundle.digest import hash_bytes
from headrace.bundle.manifest import Tolerance, Variant
from headrace.cachedir import entries, trim
from headrace.engine.prepared import (
    RECORD,
    GraphCache,
    PreparedGraph,
    Record,
    check_entry,
    graph_source,
)
from headrace.engine.session import CPU, GRAPH_FILE, WEIGHTS_FILE, OrtSession
from headrace.errors import BundleError, UsageError
from headrace.hardware import Hardware, detect_hardware
from headrace.tensors import Array

MODEL = wide_model(np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32))
OTHER = wide_model(np.random.default_rng(1).normal(size=(64, 48)).astype(np.float32))
X = np.random.default_rng(2).normal(size=(3, 64)).astype(np.float32)

OPEN = """
import sys
from pathlib import Path
from headrace.engine.prepared import GraphCache, PreparedGraph
root, graph, source = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
cache = GraphCache(Path(root), tell=print)
kept = PreparedGraph(cache, "wide", source).open(Path(graph), threads=1)
maps = Path("/proc/self/maps").read_text().splitlines()
print({line.split()[4] for line in maps if line.endswith("weights.bin")})
"""


@dataclass
class Place:
    """A cache, a graph, and what the cache told."""

    directory: Path
    model: bytes = MODEL
    told: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """Of the cache."""
        return self.directory / "graphs"

    @property
    def graph(self) -> Path:
        """The source's file."""
        path = self.directory / "model.onnx"
        path.write_bytes(self.model)
        return path

    def prepared(
        self, hardware: Hardware | None = None, *, trusting: bool = False
    ) -> PreparedGraph:
        """The graph's place in the cache."""
        cache = GraphCache(
            self.root,
            hardware=hardware or detect_hardware(),
            verify="changed" if trusting else "always",
            tell=self.told.append,
        )
        files = {"model/fp32/model.onnx": hash_bytes(self.model)}
        return PreparedGraph(cache, "wide", graph_source(files, "model/fp32/model.onnx"))

    def answer(self, *, trusting: bool = False) -> Array:
        """What a session from the cache answers."""
        session = self.prepared(trusting=trusting).open(self.graph, threads=1)
        return session.run({"x": X})["y"]

    def entry(self) -> Path:
        """The only entry."""
        (found,) = entries(self.root)
        return found.path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty cache."""
    return Place(tmp_path)


def _expected(model: bytes = MODEL) -> Array:
    return OrtSession(model, threads=1).run({"x": X})["y"]


def test_prepared_graph_gives_the_very_answers_of_its_source(place: Place) -> None:
    """Answers are equal bit for bit when the entry is made, and when it is used."""
    for _ in range(3):
        np.testing.assert_array_equal(place.answer(), _expected())
    assert place.told == []


def test_entry_is_made_once(place: Place) -> None:
    """Later loads use the entry, and note that they did."""
    place.answer()
    entry = place.entry()
    before = {path.name: path.stat().st_ino for path in entry.iterdir()}
    assert before.keys() == {GRAPH_FILE, WEIGHTS_FILE, RECORD}
    os.utime(entry / RECORD, (1, 1))
    place.answer(trusting=True)
    assert {path.name: path.stat().st_ino for path in entry.iterdir()} == before
    assert entries(place.root)[0].last_used > 1


def test_entry_is_its_owners_alone(place: Place) -> None:
    """Nobody else reads an entry, and its files are not written again by accident."""
    umask = os.umask(0)
    try:
        place.answer()
    finally:
        os.umask(umask)
    entry = place.entry()
    assert place.root.stat().st_mode & 0o777 == entry.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in entry.iterdir()}
    assert modes == {GRAPH_FILE: 0o400, WEIGHTS_FILE: 0o400, RECORD: 0o600}


def test_graph_without_large_weights_is_prepared_too(tmp_path: Path) -> None:
    """An entry may have no file of weights."""
    place = Place(tmp_path, linear_model())
    for _ in range(2):
        place.prepared().open(place.graph, threads=1)
    assert {path.name for path in place.entry().iterdir()} == {GRAPH_FILE, RECORD}
    assert place.told == []


def test_entries_of_other_graphs_and_machines_are_others(place: Place) -> None:
    """Another graph, processor, instruction set or architecture has an entry of its own."""
    place.answer()
    here = detect_hardware()
    alike = here.model_copy(update={"memory_mib": 1, "cores": 99})
    place.prepared(alike).open(place.graph, threads=1)
    assert len(entries(place.root)) == 1
    other = here.model_copy(update={"instruction_sets": here.instruction_sets[1:]})
    place.prepared(other).open(place.graph, threads=1)
    np.testing.assert_array_equal(Place(place.directory, OTHER).answer(), _expected(OTHER))
    np.testing.assert_array_equal(place.answer(), _expected())
    assert len(entries(place.root)) == 3
    machines = [
        here,
        other,
        here.model_copy(update={"architecture": "other"}),
        here.model_copy(update={"processor": "other"}),
    ]
    keys = {place.prepared(machine)._identity(CPU, "fp32").key for machine in machines}
    assert len(keys) == len(machines)


def test_source_is_the_graph_and_what_lies_beside_it() -> None:
    """External data beside a graph counts; files elsewhere in the bundle do not."""
    a, b, c = (hash_bytes(letter) for letter in (b"a", b"b", b"c"))
    path = "model/fp32/model.onnx"
    alone = graph_source({path: a}, path)
    assert alone == graph_source({path: a, "golden/cases.safetensors": b}, path)
    assert alone == graph_source({"model/v2/model.onnx": a}, "model/v2/model.onnx")
    external = graph_source({path: a, "model/fp32/weights.bin": b}, path)
    changed = graph_source({path: a, "model/fp32/weights.bin": c}, path)
    assert len({alone, external, changed, graph_source({path: b}, path)}) == 4


def _overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    _overwrite(path, bytes(content))


def _lie(entry: Path, change: Callable[[str], str]) -> None:
    record = entry / RECORD
    record.write_text(change(record.read_text()))


def _link(path: Path) -> None:
    moved = path.rename(path.parent.parent / ".moved")
    path.symlink_to(moved)


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


FAULTS: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": lambda entry: _flip(entry / WEIGHTS_FILE),
    "a bit of the graph": lambda entry: _flip(entry / GRAPH_FILE),
    "weights cut off": lambda entry: _overwrite(entry / WEIGHTS_FILE, b"short"),
    "no weights": lambda entry: (entry / WEIGHTS_FILE).unlink(),
    "no graph": lambda entry: (entry / GRAPH_FILE).unlink(),
    "no record": lambda entry: (entry / RECORD).unlink(),
    "no JSON": lambda entry: (entry / RECORD).write_bytes(b"\xff{"),
    "unknown keys": lambda entry: _lie(
        entry, lambda text: text.replace('"files"', '"x":1,"files"')
    ),
    "endless record": lambda entry: (entry / RECORD).write_bytes(b" " * 100_000),
    "another's record": lambda entry: _lie(entry, lambda text: text.replace("1.", "9.", 1)),
    "path out of the entry": lambda entry: _lie(
        entry, lambda text: text.replace(WEIGHTS_FILE, "../../model.onnx")
    ),
    "one file more": lambda entry: (entry / "more").touch(),
    "weights are a link": lambda entry: _link(entry / WEIGHTS_FILE),
    "record is a pipe": lambda entry: _replace(entry / RECORD, os.mkfifo),
    "record is a directory": lambda entry: _replace(entry / RECORD, Path.mkdir),
    "others may write": lambda entry: entry.chmod(0o777),
    "others may write weights": lambda entry: (entry / WEIGHTS_FILE).chmod(0o660),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A cache with one entry, to copy."""
    made = Place(tmp_path_factory.mktemp("good"))
    made.answer()
    return made


@pytest.fixture
def copied(place: Place, good: Place) -> Place:
    """A cache with that entry."""
    shutil.copytree(good.root, place.root)
    return place


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("always", [True, False], ids=["always", "changed"])
def test_faulty_entry_is_found_out(copied: Place, fault: str, *, always: bool) -> None:
    """Whatever is wrong with an entry is seen before the engine sees the entry."""
    prepared, entry = copied.prepared(), copied.entry()
    identity = prepared._identity(CPU, "fp32")
    check_entry(entry, identity, always=always)
    FAULTS[fault](entry)
    with pytest.raises((BundleError, FileNotFoundError)):
        check_entry(entry, identity, always=always)


@pytest.mark.parametrize(
    "fault", ["a bit of the weights", "no weights", "no record", "record is a directory"]
)
def test_faulty_entry_is_made_again(copied: Place, fault: str) -> None:
    """The answer is right all the same, the fault is told once, and the entry is mended."""
    FAULTS[fault](copied.entry())
    np.testing.assert_array_equal(copied.answer(), _expected())
    assert len(copied.told) == 1
    assert "is made again" in copied.told[0]
    np.testing.assert_array_equal(copied.answer(), _expected())
    assert len(copied.told) == 1


@pytest.mark.parametrize("kind", ["file", "link", "empty directory"])
def test_what_is_no_entry_is_replaced(copied: Place, kind: str) -> None:
    """A file, a link or an empty directory in an entry's place goes."""
    entry = copied.entry()
    entry.rename(copied.directory / "elsewhere")
    if kind == "file":
        entry.write_bytes(b"")
    elif kind == "link":
        entry.symlink_to(copied.directory / "elsewhere")
    else:
        entry.mkdir(0o700)
    np.testing.assert_array_equal(copied.answer(), _expected())
    assert not copied.entry().is_symlink()
    assert (copied.directory / "elsewhere" / GRAPH_FILE).exists()


def test_record_with_right_digests_of_a_wrong_graph_is_refused_by_the_engine(copied: Place) -> None:
    """An entry whose files are what its record says, and yet no graph, is made again."""
    entry = copied.entry()
    _overwrite(entry / GRAPH_FILE, b"no graph")
    record = Record.model_validate_json((entry / RECORD).read_bytes())
    listed = record.files[GRAPH_FILE].model_copy(update=hash_bytes(b"no graph").model_dump())
    files = {**record.files, GRAPH_FILE: listed}
    (entry / RECORD).write_text(record.model_copy(update={"files": files}).model_dump_json())
    np.testing.assert_array_equal(copied.answer(), _expected())
    assert len(copied.told) == 1


def _stamp(entry: Path) -> None:
    """Records the inodes and times of a copied entry's files."""
    record = Record.model_validate_json((entry / RECORD).read_bytes())
    states = {name: (entry / name).stat() for name in record.files}
    files = {
        name: file.model_copy(
            update={"inode": states[name].st_ino, "changed_ns": states[name].st_ctime_ns}
        )
        for name, file in record.files.items()
    }
    (entry / RECORD).write_text(record.model_copy(update={"files": files}).model_dump_json())


def test_unchanged_files_may_go_without_a_hash(copied: Place) -> None:
    """A file whose inode and time of change are as recorded is not read, if that was asked for."""
    entry = copied.entry()
    _stamp(entry)
    record = Record.model_validate_json((entry / RECORD).read_bytes())
    wrong = record.files[WEIGHTS_FILE].model_copy(update={"sha256": "0" * 64})
    files = {**record.files, WEIGHTS_FILE: wrong}
    (entry / RECORD).write_text(record.model_copy(update={"files": files}).model_dump_json())
    copied.answer(trusting=True)
    assert copied.told == []
    copied.answer()
    assert "sha256" in copied.told[0]


def test_broken_graph_is_the_bundles_fault_and_leaves_nothing(tmp_path: Path) -> None:
    """A graph that does not load is the error it always is, and no entry appears."""
    place = Place(tmp_path, b"rubbish")
    with pytest.raises(BundleError) as caught:
        place.prepared().open(place.graph)
    assert caught.value.code == "bundle.graph"
    assert entries(place.root) == ()
    assert {path.name for path in place.root.iterdir()} == {".lock", ".making"}


def test_cache_that_cannot_be_written_is_told_and_done_without(place: Place) -> None:
    """Where there is no room for an entry, the model loads without one."""
    place.directory.joinpath("file").touch()
    told: list[str] = []
    cache = GraphCache(place.directory / "file" / "graphs", tell=told.append)
    session = PreparedGraph(cache, "wide", "0" * 64).open(place.graph)
    np.testing.assert_array_equal(session.run({"x": X})["y"], _expected())
    assert len(told) == 1
    assert "cannot be written" in told[0]


@pytest.mark.parametrize("fault", ["others may write", "link"])
def test_cache_of_others_is_refused(copied: Place, fault: str) -> None:
    """A cache in which others could put a model is an error that says so."""
    if fault == "link":
        copied.root.rename(copied.directory / "elsewhere")
        copied.root.symlink_to(copied.directory / "elsewhere")
    else:
        copied.root.chmod(0o770)
    with pytest.raises(UsageError, match="cannot be trusted") as caught:
        copied.answer()
    assert caught.value.code == "cache.unsafe"


def test_processes_that_start_at_once_share_one_entry(place: Place) -> None:
    """However many begin with an empty cache, all end up with the weights of one entry."""
    arguments = [str(place.root), str(place.graph), place.prepared().source]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    told = [process.communicate("\n", timeout=60)[0] for process in started]
    inode = (place.entry() / WEIGHTS_FILE).stat().st_ino
    assert told == [f"{{'{inode}'}}\n"] * 3
    assert {path.name for path in place.root.iterdir()} == {
        ".lock",
        ".making",
        place.entry().name,
    }


def test_loaded_session_outlives_its_entry(copied: Place) -> None:
    """An entry may be trimmed while it is in use."""
    session = copied.prepared().open(copied.graph)
    assert len(trim([copied.root], 0)) == 1
    np.testing.assert_array_equal(session.run({"x": X})["y"], _expected())
    np.testing.assert_array_equal(copied.answer(), _expected())


def test_engines_of_tensorrt_have_a_directory_of_their_own(place: Place) -> None:
    """By arithmetic, owner-only, listed with the graphs, and refused where others may write."""
    prepared = place.prepared()
    variant = Variant(
        name="fp16",
        precision="fp16",
        engine="onnxruntime",
        arithmetic="fp16",
        path="model/fp32/model.onnx",
        tolerance=Tolerance(absolute=0, relative=0),
    )
    directory = prepared.engines(variant)
    assert directory == prepared.engines(variant)
    assert directory != prepared.engines(variant.model_copy(update={"arithmetic": "fp32"}))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(entries(place.root)) == 2
    directory.chmod(0o777)
    with pytest.raises(UsageError) as caught:
        prepared.engines(variant)
    assert caught.value.code == "cache.unsafe"

"""Fast loading: graphs that ONNX Runtime has optimized for this processor, kept on this host.

An entry holds a graph after all optimizations and, beside it, its weights as the kernels of this
processor want them. Loading it neither optimizes nor repacks, and processes share the weights
through the page cache. Entries belong to one processor and one build of ONNX Runtime, so they are
a cache beside bundles and no content of theirs; whatever is wrong with one, it is made again.
"""

import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import ValidationError

from headrace.bundle.digest import hash_file
from headrace.bundle.manifest import Arithmetic, Digest, FileEntry, Manifest, Name, Variant
from headrace.cachedir import adding, remove, touch
from headrace.engine.providers import TENSORRT
from headrace.engine.session import CPU, GRAPH_FILE, OrtSession, load_onnxruntime
from headrace.errors import BundleError, HeadraceError, UsageError
from headrace.hardware import Hardware, detect_hardware
from headrace.tensors import Frozen

RECORD = "record.json"
_MAKING = ".making"
_MAX_RECORD_BYTES = 64 << 10
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Identity(Frozen):
    """What an entry belongs to: where any of this differs, there is another entry.

    Attributes:
        version: Of this cache's format.
        source: What `graph_source` gave for the graph.
        engine: Version and build of ONNX Runtime.
    """

    version: Literal[1] = 1
    source: Digest
    engine: str
    architecture: str
    processor: str
    instruction_sets: tuple[str, ...]
    provider: str
    arithmetic: Arithmetic

    @property
    def key(self) -> str:
        """A sha256."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class PreparedFile(FileEntry):
    """One file of an entry.

    Attributes:
        inode: Its number, and
        changed_ns: the time of its last change as the file system keeps it, which no program can
            set. While both are the same, nobody has written to the file.
    """

    inode: int
    changed_ns: int


class Record(Frozen):
    """`record.json` of an entry; what lies beside it is what it lists."""

    identity: Identity
    files: dict[str, PreparedFile]


@dataclass(frozen=True)
class GraphCache:
    """The prepared graphs of one host; any number of processes may use it at once.

    Attributes:
        root: The section of the cache, for `headrace.cachedir`. Owner-only.
        hardware: This machine.
        verify: Before each load, `always` hashes an entry's files; `changed` hashes those whose
            inode or time of change is not what was recorded, and so misses what only a disk's
            own fault changes.
        tell: Called with one sentence whenever an entry was refused, or could not be written.
    """

    root: Path
    hardware: Hardware = field(default_factory=detect_hardware)
    verify: Literal["always", "changed"] = "always"
    tell: Callable[[str], None] = lambda _sentence: None

    def of(self, manifest: Manifest, variant: Variant) -> "PreparedGraph":
        """The place of a variant's graph in this cache."""
        return PreparedGraph(self, manifest.name, graph_source(manifest.files, variant.path))


@dataclass(frozen=True)
class PreparedGraph:
    """One graph's place in the cache.

    Attributes:
        name: Of the model, for people who look at the cache.
        source: What `graph_source` gives.
    """

    cache: GraphCache
    name: Name
    source: Digest

    def open(self, graph: Path, *, threads: int = 0) -> OrtSession:
        """A session on the CPU: from the cache, which is filled if it has nothing that fits.

        Where the cache cannot be written, the session is opened from the graph itself; that is
        told, and changes nothing but time and memory.

        Raises:
            MissingError: No onnxruntime is installed.
            BundleError: The graph cannot be loaded.
            UsageError: Others may write to the cache.
        """
        _check_root(self.cache.root)
        identity = self._identity(CPU, "fp32")
        entry = self._entry(identity)
        session = self._load(entry, identity, threads)
        if session is None:
            self._make(graph, entry, identity)
            session = self._load(entry, identity, threads)
        return OrtSession(graph, threads=threads) if session is None else session

    def engines(self, variant: Variant) -> Path:
        """The directory for what TensorRT builds of this graph, made if it is not there.

        Raises:
            UsageError: Others may write to it: engines are code.
            OSError: It cannot be made.
        """
        _check_root(self.cache.root)
        entry = self._entry(self._identity(TENSORRT, variant.arithmetic))
        entry.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_root(entry)
        touch(entry)
        return entry

    def _entry(self, identity: Identity) -> Path:
        return self.cache.root / f"{self.name}-{identity.key}"

    def _identity(self, provider: str, arithmetic: Arithmetic) -> Identity:
        ort = load_onnxruntime()
        return Identity(
            source=self.source,
            engine=f"{ort.__version__} {ort.get_build_info()}",
            architecture=self.cache.hardware.architecture,
            processor=self.cache.hardware.processor,
            instruction_sets=self.cache.hardware.instruction_sets,
            provider=provider,
            arithmetic=arithmetic,
        )

    def _load(self, entry: Path, identity: Identity, threads: int) -> OrtSession | None:
        """A session of an entry, or None if there is none; one that will not do is removed."""
        try:
            check_entry(entry, identity, always=self.cache.verify == "always")
            session = OrtSession(entry / GRAPH_FILE, threads=threads, optimize=False)
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(entry):
                return None
            reason = "a file is missing"
        except (BundleError, OSError) as error:
            reason = str(error)
        else:
            touch(entry)
            return session
        self.cache.tell(f"the prepared graph {entry} is made again: {reason}")
        with suppress(OSError):  # then it cannot be replaced either, which is told
            remove(entry)
        return None

    def _make(self, graph: Path, entry: Path, identity: Identity) -> None:
        try:
            # Processes share the weights only if all of them load one entry, and making many at
            # once would take many times the memory.
            with _alone(self.cache.root):
                if _is_good(entry, identity):
                    return
                with adding(entry) as made:
                    _save(graph, made)
                    _record(made, identity)
        except (BundleError, OSError) as error:
            self.cache.tell(f"the prepared graph {entry} cannot be written: {error}")


def graph_source(files: Mapping[str, FileEntry], path: str) -> str:
    """The sha256 that a graph is known by: of it, and of what lies beside it as external data.

    Args:
        files: Of the bundle's manifest.
        path: The graph's.
    """
    folder = PurePosixPath(path).parent
    beside = sorted(
        f"{entry.sha256} {PurePosixPath(name).relative_to(folder)}\n"
        for name, entry in files.items()
        if PurePosixPath(name).is_relative_to(folder)
    )
    lines = (f"{PurePosixPath(path).name}\n", *beside)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_entry(entry: Path, identity: Identity, *, always: bool = True) -> None:
    """Checks that an entry is this user's, is what its record says, and belongs to `identity`.

    Args:
        always: Hash every file; otherwise those alone that seem to have been written to.

    Raises:
        BundleError: It is not.
        FileNotFoundError: It, or a file of it, is not there.
        OSError: It cannot be read.
    """
    _check_owned(entry, stat.S_ISDIR)
    state = _check_owned(entry / RECORD, stat.S_ISREG)
    if state.st_size > _MAX_RECORD_BYTES:
        raise _refused(f"{RECORD} is larger than a record can be")
    try:
        record = Record.model_validate_json((entry / RECORD).read_bytes())
    except ValidationError as error:
        raise _refused(f"{RECORD} cannot be read") from error
    if record.identity != identity:
        raise _refused("it belongs to another graph, engine or processor")
    found = {path.name for path in entry.iterdir()}
    if found != {RECORD, *record.files} or GRAPH_FILE not in found:
        raise _refused(f"it does not hold what {RECORD} lists")
    for name, expected in record.files.items():
        _check_file(entry / name, expected, always=always)


def _is_good(entry: Path, identity: Identity) -> bool:
    try:
        check_entry(entry, identity, always=False)
    except (BundleError, OSError):
        return False
    return True


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Holds the lock of whoever makes entries; the system takes it from a process that ends."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(root / _MAKING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_file(path: Path, expected: PreparedFile, *, always: bool) -> None:
    state = _check_owned(path, stat.S_ISREG)
    if state.st_size != expected.size:
        raise _refused(f"{path.name} has {state.st_size} bytes, and had {expected.size}")
    same = (state.st_ino, state.st_ctime_ns) == (expected.inode, expected.changed_ns)
    if (always or not same) and hash_file(path).sha256 != expected.sha256:
        raise _refused(f"{path.name} was changed: its sha256 does not match")


def _check_owned(path: Path, is_kind: Callable[[int], bool]) -> os.stat_result:
    state = path.lstat()
    if not is_kind(state.st_mode):
        raise _refused(f"{path.name} is of another kind")
    if state.st_uid != os.geteuid() or state.st_mode & _OTHERS_WRITE:
        raise _refused(f"{path.name} is not this user's alone")
    return state


def _check_root(root: Path) -> None:
    """Whoever writes to the directory could put another model in an entry's place.

    Raises:
        UsageError: Others own it, or may write to it.
    """
    try:
        _check_owned(root, stat.S_ISDIR)
    except BundleError as error:
        raise UsageError(
            "cache.unsafe",
            f"the cache {root} cannot be trusted: {error}",
            "remove it, or choose another HEADRACE_HOME",
        ) from error
    except OSError:
        return  # nothing can be read from it either


def _save(graph: Path, directory: Path) -> None:
    """Saves the optimized graph from a process of its own.

    It takes several times the memory of the model, which this process would not get rid of again.

    Raises:
        BundleError: The graph cannot be loaded, or not be saved.
    """
    # -P: what lies in the working directory is no module of ours.
    command = (sys.executable, "-P", "-m", __name__, str(graph), str(directory))
    done = subprocess.run(  # noqa: S603 - this module; the two paths are arguments
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise _refused(done.stderr.strip().rpartition("\n")[2] or f"exit {done.returncode}")


def _record(made: Path, identity: Identity) -> None:
    """Closes a new entry: its files are on the disk and read-only, its record names them."""
    files = {}
    for path in sorted(made.iterdir()):
        with path.open("rb") as file:
            os.fsync(file)
        path.chmod(0o400)
        entry, state = hash_file(path), path.stat()
        files[path.name] = PreparedFile(
            sha256=entry.sha256,
            size=entry.size,
            inode=state.st_ino,
            changed_ns=state.st_ctime_ns,
        )
    record = made / RECORD
    record.write_text(Record(identity=identity, files=files).model_dump_json(indent=1) + "\n")
    record.chmod(0o600)


def _refused(reason: str) -> BundleError:
    return BundleError("cache.entry", reason)


def main() -> None:
    """Saves the graph of the first argument in the directory of the second."""
    graph, directory = sys.argv[1:]
    try:
        OrtSession(Path(graph), threads=1, save_to=Path(directory))
    except HeadraceError as error:
        sys.exit(str(error).replace("\n", " "))


if __name__ == "__main__":
    main()

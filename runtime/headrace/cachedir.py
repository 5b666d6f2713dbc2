"""Directories of cached things: entries appear whole, are told by their last use, and can go.

One section of the cache is one directory, and what lies in it directly is its entries: files, or
directories that hold a record. Names that begin with a dot are no entries: `.lock`, and what a
writer has not finished. Any number of processes may use a section at once.
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

RECORDS = ("record.json", "result.json")
"""The file of an entry whose time of change is the entry's last use, if it is there."""
_PARTIAL = ".partial-"
_LOCK = ".lock"
_THERE = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""What renaming a directory to a path says where an entry stands, be it a file."""


@dataclass(frozen=True)
class Entry:
    """One thing in a cache.

    Attributes:
        path: Of its file or directory, which is called `NAME-KEY`.
        size: Of all its files, in bytes.
        last_used: In seconds since the epoch.
    """

    path: Path
    size: int
    last_used: float

    @property
    def name(self) -> str:
        """What made it; empty where its path tells no more than the key."""
        return self.path.name.rpartition("-")[0]

    @property
    def key(self) -> str:
        """What tells it from others of its name."""
        return self.path.name.rpartition("-")[2]


def entries(root: Path) -> tuple[Entry, ...]:
    """What a section holds, the least recently used first; nothing if there is no such section."""
    try:
        paths = [path for path in root.iterdir() if not path.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = [_entry(path) for path in paths]
    there = [entry for entry in found if entry is not None]
    return tuple(sorted(there, key=lambda entry: (entry.last_used, entry.path)))


def touch(path: Path) -> None:
    """Notes that an entry is used now; one that is gone, or may not be written, stays as it is."""
    for record in (*(path / name for name in RECORDS), path):
        with suppress(OSError):
            os.utime(record, follow_symlinks=False)
            return


def trim(roots: Sequence[Path], limit_bytes: int) -> tuple[Entry, ...]:
    """Removes the least recently used entries until the rest of them is within a limit.

    Clears what ended writers left, too.

    Args:
        roots: The sections, which share the limit.

    Returns:
        What was removed.
    """
    held = [entry for root in roots for entry in entries(root)]
    total = sum(entry.size for entry in held)
    removed = []
    for entry in sorted(held, key=lambda entry: entry.last_used):
        if total <= limit_bytes:
            break
        total -= entry.size
        if remove(entry.path):
            removed.append(entry)
    for root in roots:
        sweep(root)
    return tuple(removed)


def clear(root: Path) -> tuple[Entry, ...]:
    """Removes every entry of a section, and what ended writers left.

    Returns:
        What was removed.
    """
    removed = tuple(entry for entry in entries(root) if remove(entry.path))
    sweep(root)
    return removed


def remove(path: Path) -> bool:
    """Removes an entry at one stroke, so that nobody finds half of it.

    Returns:
        False if it was not there.

    Raises:
        OSError: It may not be removed.
    """
    # Renamed to a name of its own, and not into a new directory: a full disk has no room for one.
    removed = path.with_name(f"{_PARTIAL}{secrets.token_hex(8)}")
    try:
        with _locked(path.parent, fcntl.LOCK_SH):
            path.rename(removed)
            _discard(removed)
    except FileNotFoundError:
        return False
    return True


def sweep(root: Path) -> None:
    """Removes what writers left that ended before they were done, unless somebody writes now."""
    if next(root.glob(f"{_PARTIAL}*"), None) is None:
        return
    with suppress(BlockingIOError), _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for path in root.glob(f"{_PARTIAL}*"):
            _discard(path)


def _discard(path: Path) -> None:
    """Removes a file or a directory as far as it can be."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextmanager
def adding(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes the entry at `path` when the context ends well.

    It replaces an entry that stands there. When the context ends with an error, or the process
    does, no entry appears. Directories are made with owner-only permissions.

    Raises:
        OSError: The disk is full or not writable; nothing is left behind.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _writing(path.parent) as partial:
        made = partial / "made"
        made.mkdir(mode=0o700)
        yield made
        try:
            made.rename(path)
        except OSError as error:
            if error.errno not in _THERE:
                raise
            _replace(made, path, partial / "replaced")


def _replace(made: Path, path: Path, replaced: Path) -> None:
    """Puts a directory in an entry's place; where another writer is quicker, theirs stays."""
    with suppress(FileNotFoundError):
        path.rename(replaced)
    try:
        made.rename(path)
    except OSError as error:
        if error.errno not in _THERE:
            raise


@contextmanager
def _writing(root: Path) -> Iterator[Path]:
    """A directory in the section that is no entry, for as long as the context lasts."""
    with _locked(root, fcntl.LOCK_SH):
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=root))
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(root: Path, how: int) -> Iterator[None]:
    """Holds the section's lock, which the system takes back from a process that ends.

    Whoever writes shares it; who has it alone knows that all unfinished work is abandoned.
    """
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _entry(path: Path) -> Entry | None:
    """What lies at a path, or None if it has gone meanwhile."""
    try:
        own = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(own.st_mode):
        return Entry(path, own.st_size, own.st_mtime)
    states = dict(_files(path))
    records = [states[path / name] for name in RECORDS if path / name in states]
    newest = max((state.st_mtime for state in states.values()), default=own.st_mtime)
    size = sum(state.st_size for state in states.values())
    return Entry(path, size, records[0].st_mtime if records else newest)


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(FileNotFoundError):  # removed meanwhile
                yield Path(folder, name), os.lstat(Path(folder, name))

"""A directory of cached things: whole entries, the least recently used go first."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.cachedir import Entry, adding, clear, entries, remove, sweep, touch, trim

WRITER = """
import sys
from pathlib import Path
from headrace.cachedir import adding
with adding(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(bytes(1000))
    print("writing", flush=True)
    sys.stdin.read()
"""


def _add(path: Path, size: int, used: float) -> Path:
    with adding(path) as folder:
        (folder / "record.json").write_bytes(bytes(size))
    os.utime(path / "record.json", (used, used))
    return path


def _fail(folder: Path) -> None:
    (folder / "half").touch()
    raise ZeroDivisionError


def _names(found: tuple[Entry, ...]) -> list[str]:
    return [entry.path.name for entry in found]


def _hidden(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name.startswith(".partial-"))


def test_entries_are_told_by_name_key_size_and_last_use(tmp_path: Path) -> None:
    """An entry's size is that of all its files, and its last use the time of its record."""
    _add(tmp_path / "two-words-00ff", 5, 100.0)
    (tmp_path / "two-words-00ff" / "deep").mkdir()
    (tmp_path / "two-words-00ff" / "deep" / "blob").write_bytes(bytes(7))
    (entry,) = entries(tmp_path)
    assert (entry.name, entry.key, entry.size, entry.last_used) == ("two-words", "00ff", 12, 100.0)


def test_without_a_record_the_newest_file_tells(tmp_path: Path) -> None:
    """An entry may be a file, or a directory without a record; hidden names are no entries."""
    (tmp_path / "file.json").write_bytes(b"123")
    (tmp_path / "folder").mkdir()
    for name, used in (("old", 10.0), ("new", 20.0)):
        (tmp_path / "folder" / name).touch()
        os.utime(tmp_path / "folder" / name, (used, used))
    (tmp_path / ".hidden").touch()
    os.utime(tmp_path / "file.json", (5.0, 5.0))
    found = [(entry.path.name, entry.size, entry.last_used) for entry in entries(tmp_path)]
    assert found == [("file.json", 3, 5.0), ("folder", 0, 20.0)]


def test_a_section_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Nothing is listed, trimmed, cleared or removed where there is no directory."""
    root = tmp_path / "none"
    assert entries(root) == clear(root) == trim((root,), 0) == ()
    assert not remove(root / "entry")
    assert not root.exists()


def test_trim_removes_the_least_recently_used(tmp_path: Path) -> None:
    """Sections share a limit, and what was used last stays."""
    one, two = tmp_path / "one", tmp_path / "two"
    _add(one / "a", 10, 100.0)
    _add(two / "b", 10, 200.0)
    _add(one / "c", 10, 300.0)
    assert trim((one, two), 30) == ()
    touch(one / "a")
    assert _names(trim((one, two), 20)) == ["b"]
    assert _names(trim((one, two), 10)) == ["c"]
    assert _names(entries(one)) == ["a"]
    assert _names(trim((one, two), 0)) == ["a"]


def test_clear_removes_all_of_it(tmp_path: Path) -> None:
    """Files, directories and links go; what a link points to stays."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").touch()
    root = tmp_path / "section"
    _add(root / "a", 1, 1.0)
    (root / "file").touch()
    (root / "link").symlink_to(target)
    assert sorted(_names(clear(root))) == ["a", "file", "link"]
    assert entries(root) == ()
    assert _hidden(root) == []
    assert (target / "kept").exists()


def test_an_entry_is_replaced_whole(tmp_path: Path) -> None:
    """A second entry of one name takes the place of the first, with nothing left of it."""
    with adding(tmp_path / "entry") as folder:
        (folder / "old").touch()
    with adding(tmp_path / "entry") as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "entry").iterdir()] == ["new"]
    assert _hidden(tmp_path) == []


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """An entry whose writer fails does not appear, and neither does what it wrote so far."""
    with pytest.raises(ZeroDivisionError), adding(tmp_path / "entry") as folder:
        _fail(folder)
    assert entries(tmp_path) == ()
    assert _hidden(tmp_path) == []


def test_directories_are_owner_only(tmp_path: Path) -> None:
    """Nobody else may look into a section or an entry, whatever the umask."""
    _add(tmp_path / "section" / "entry", 1, 1.0)
    for path in (tmp_path / "section", tmp_path / "section" / "entry"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_killed_writer_leaves_no_entry(tmp_path: Path) -> None:
    """What a writer had when it was killed is never listed; it is swept, but not while it runs."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "entry"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        sweep(tmp_path)
        assert len(_hidden(tmp_path)) == 1
        _add(tmp_path / "other", 1, time.time())
        writer.send_signal(signal.SIGKILL)
    finally:
        writer.kill()
        writer.communicate()
    assert _names(entries(tmp_path)) == ["other"]
    trim((tmp_path,), 100)
    assert _hidden(tmp_path) == []
    assert _names(entries(tmp_path)) == ["other"]

"""The step cache: what was made once is not made again, and nothing wrong ever comes out."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.tensors import Array
from headrace_compiler.cache import Hit, StepCache, cached_call

KEY = "tune-" + "0" * 64
OTHER = "fuse-" + "1" * 64
TOOLS = {"numpy": "2"}


@dataclass(frozen=True)
class Ranges:
    """What a step may give."""

    content: bytes
    limits: Mapping[str, Array]
    loss: float


RANGES = Ranges(content=b"graph", limits={"x": np.arange(3.0)}, loss=0.5)


def tune(graph: bytes, log: list[str], loss: float = 0.5) -> Ranges:
    """A step that counts how often it is run."""
    log.append("ran")
    return Ranges(content=graph, limits={}, loss=loss)


def refine(graph: bytes, ran: Path) -> Ranges:
    """A step with an argument that has no digest."""
    return Ranges(content=graph, limits={}, loss=float(ran.exists()))


@pytest.fixture
def cache(tmp_path: Path) -> StepCache:
    """An empty cache."""
    return StepCache(tmp_path / "home" / "cache" / "steps", 1_000_000)


def _get(cache: StepCache, key: str = KEY) -> Ranges | None:
    hit = cache.get(key, Ranges)
    return None if hit is None else hit.result


def test_what_is_put_comes_back(cache: StepCache) -> None:
    """A result comes back equal, under its key alone."""
    assert _get(cache) is None
    assert cache.put(KEY, RANGES, Ranges) == ""
    found = _get(cache)
    assert found is not None
    assert (found.content, found.loss) == (RANGES.content, RANGES.loss)
    np.testing.assert_array_equal(found.limits["x"], RANGES.limits["x"])
    assert _get(cache, OTHER) is None
    (entry,) = cache.entries()
    assert (entry.name, entry.key) == ("tune", "0" * 64)


def test_none_is_a_result(cache: StepCache) -> None:
    """A step that found nothing to do is not run again."""
    optional: Any = Ranges | None
    cache.put(KEY, None, optional)
    assert cache.get(KEY, optional) == Hit(None)
    assert cache.get(OTHER, optional) is None


def test_a_key_is_no_path(cache: StepCache) -> None:
    """A key of another form than `step_key` gives never reaches the disk."""
    for key in ("../x", "tune", f"{KEY}/..", f"{KEY}\n", f".{KEY}"):
        with pytest.raises(ValueError, match="is no key"):
            cache.get(key, Ranges)
        with pytest.raises(ValueError, match="is no key"):
            cache.put(key, RANGES, Ranges)


@pytest.mark.parametrize("name", ["record.json", "result.json", "blobs.bin"])
@pytest.mark.parametrize("fault", ["flip", "cut", "grow", "empty", "gone"])
def test_a_damaged_entry_is_a_miss(cache: StepCache, name: str, fault: str) -> None:
    """Whatever happens to a file of an entry, it is removed and made again."""
    cache.put(KEY, RANGES, Ranges)
    path = cache.root / KEY / name
    content = path.read_bytes()
    middle = len(content) // 2
    changed = {
        "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut": content[:middle],
        "grow": content + b" x",
        "empty": b"",
    }
    path.unlink()
    if fault in changed:
        path.write_bytes(changed[fault])
    assert _get(cache) is None
    assert cache.entries() == ()
    assert cache.put(KEY, RANGES, Ranges) == ""
    assert _get(cache) is not None


def test_an_entry_of_another_type_is_a_miss(cache: StepCache) -> None:
    """A result whose declared type has changed is made again."""
    cache.put(KEY, 1, int)
    assert _get(cache) is None
    assert cache.entries() == ()


def test_a_file_in_place_of_an_entry_is_replaced(cache: StepCache) -> None:
    """Rubbish under a key hinders nobody."""
    cache.root.mkdir(parents=True)
    (cache.root / KEY).write_bytes(b"rubbish")
    assert _get(cache) is None
    assert cache.put(KEY, RANGES, Ranges) == ""
    assert _get(cache) is not None


def test_a_step_is_run_once(cache: StepCache) -> None:
    """The second call with the same arguments takes the result of the first."""
    log: list[str] = []
    arguments = {"graph": b"g", "log": log}
    first = cached_call(cache, TOOLS, "tune", tune, b"g", [])
    assert (first.hit, first.fault) == (False, "")
    second = cached_call(cache, TOOLS, "tune", tune, **arguments)  # type: ignore[arg-type]
    assert (second.hit, second.fault) == (True, "")
    assert second.result == first.result
    assert log == []


def test_another_argument_is_another_call(cache: StepCache) -> None:
    """A changed argument, tool or name runs the step again."""
    cached_call(cache, TOOLS, "tune", tune, b"g", [])
    assert cached_call(cache, TOOLS, "tune", tune, b"g", [], loss=0.25).result.loss == 0.25
    assert not cached_call(cache, TOOLS, "tune", tune, b"h", []).hit
    assert not cached_call(cache, {"numpy": "3"}, "tune", tune, b"g", []).hit
    assert not cached_call(cache, TOOLS, "again", tune, b"g", []).hit
    assert len(cache.entries()) == 5


def test_an_argument_without_a_digest_is_an_error(cache: StepCache, tmp_path: Path) -> None:
    """A step that depends on a path is not cached by mistake, and is not run."""
    with pytest.raises(TypeError, match="refine: ran is a PosixPath"):
        cached_call(cache, TOOLS, "refine", refine, b"g", tmp_path)


def test_a_result_of_another_type_is_an_error(cache: StepCache) -> None:
    """A result that is not what the step declares is neither kept nor passed over."""
    with pytest.raises(TypeError, match=r"result\.loss is a str"):
        cached_call(cache, TOOLS, "tune", tune, b"g", [], loss="low")  # type: ignore[arg-type]
    assert cache.entries() == ()


def test_the_least_recently_used_goes_first(cache: StepCache) -> None:
    """Beyond the limit old entries go, and one that was read lately is not old."""
    keys = [f"tune-{number:064x}" for number in range(4)]
    small = StepCache(cache.root, 3_500)
    for number, key in enumerate(keys[:3]):
        assert small.put(key, bytes(700), bytes) == ""
        os.utime(small.root / key / "record.json", (number, number))
    assert small.get(keys[0], bytes) is not None
    assert small.put(keys[3], bytes(700), bytes) == ""
    assert {entry.path.name for entry in small.entries()} == {keys[0], keys[2], keys[3]}
    assert len(StepCache(cache.root, 1_500).trim()) == 2
    assert len(cache.clear()) == 1
    assert cache.entries() == ()


@pytest.mark.parametrize("limit", [0, 999])
def test_what_is_larger_than_the_cache_is_not_kept(cache: StepCache, limit: int) -> None:
    """One result does not push out all others: it is not kept, and the caller is told why."""
    cache.put(OTHER, 1, int)
    fault = StepCache(cache.root, limit).put(KEY, bytes(1000), bytes)
    assert f"the cache may take {limit}" in fault
    assert [entry.path.name for entry in cache.entries()] == [OTHER]


def test_a_full_disk_is_told_and_leaves_nothing(cache: StepCache) -> None:
    """Where the file system has no more room the build goes on, and is told why nothing is kept."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        fault = cache.put(KEY, bytes(1_000_000), bytes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.strerror(errno.EFBIG) in fault
    assert list(cache.root.glob("[!.]*")) == []
    assert list(cache.root.glob(".partial-*")) == []


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A cache whose directory cannot be made keeps nothing and says so."""
    (tmp_path / "cache").write_bytes(b"")
    fault = StepCache(tmp_path / "cache" / "steps", 1_000_000).put(KEY, 1, int)
    assert os.strerror(errno.ENOTDIR) in fault


def test_entries_are_owner_only(cache: StepCache) -> None:
    """A cache may hold the user's weights and samples: nobody else may look."""
    cache.put(KEY, RANGES, Ranges)
    for path in (cache.root, cache.root / KEY):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


WORKER = """
import sys
from pathlib import Path
from headrace_compiler.cache import StepCache
root, first, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = StepCache(root, 40_000)
print("ready", flush=True)
for turn in range(first, first + rounds):
    key = f"tune-{turn % 7:064x}"
    size = 5_000 + turn % 7
    hit = cache.get(key, bytes)
    if hit is not None and hit.result != bytes(size):
        sys.exit(f"{key} holds {len(hit.result)} bytes")
    fault = cache.put(key, bytes(size), bytes)
    if fault:
        sys.exit(fault)
"""


def _worker(cache: StepCache, first: int, rounds: int) -> "subprocess.Popen[bytes]":
    arguments = [str(cache.root), str(first), str(rounds)]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_processes_share_a_cache(cache: StepCache) -> None:
    """Two processes that read, write, replace and trim the same entries never see half of one."""
    workers = [_worker(cache, first, 60) for first in (0, 3)]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors.decode()
    assert all(cache.get(entry.path.name, bytes) for entry in cache.entries())
    assert sum(entry.size for entry in cache.entries()) <= 40_000
    assert list(cache.root.glob(".partial-*")) == []


def test_a_kill_at_any_moment_leaves_whole_entries(cache: StepCache) -> None:
    """After kill -9 every visible entry is whole, and the next trim clears the rest."""
    for turn in range(5):
        worker = _worker(cache, 0, 1_000_000)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        time.sleep(0.01 + 0.007 * turn)
        worker.kill()
        worker.communicate()
        held = cache.entries()
        assert all(cache.get(entry.path.name, bytes) is not None for entry in held)
    cache.trim()
    assert list(cache.root.glob(".partial-*")) == []


def test_a_kill_in_the_middle_of_a_put_leaves_nothing(cache: StepCache) -> None:
    """An entry whose bytes were half written when its writer was killed is never found."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from headrace_compiler.cache import StepCache\n"
        "class Slow(tuple):\n"
        "    def __iter__(self):\n"
        "        yield bytes(100_000)\n"
        "        print('half', flush=True)\n"
        "        time.sleep(60)\n"
        "StepCache(Path(sys.argv[1]), 10**6).put(sys.argv[2], Slow((1,)), tuple[bytes, ...])\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, cache.root, KEY], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        assert len(list(cache.root.glob(".partial-*"))) == 1
    finally:
        writer.kill()
        writer.communicate()
    assert cache.get(KEY, bytes) is None
    assert cache.entries() == ()
    assert cache.put(KEY, b"", bytes) == ""
    assert list(cache.root.glob(".partial-*")) == []

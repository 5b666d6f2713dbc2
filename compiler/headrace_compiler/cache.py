"""The step cache: what a step made, kept under the sha256 of all that it depends on.

A section of `headrace.cachedir`: an entry is a directory `NAME-KEY` of `record.json`, whose time
is the entry's last use, `result.json`, the result as its codec spells it, and `blobs.bin`, its
bytes and arrays. The record holds the sha256 of both, which are checked at every load.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, get_type_hints

from pydantic import ValidationError

from headrace.bundle.digest import hash_bytes, hash_file
from headrace.bundle.manifest import FileEntry
from headrace.cachedir import Entry, adding, clear, entries, remove, touch, trim
from headrace.tensors import Frozen
from headrace_compiler.cache_codec import Codec, MisfitError, codec
from headrace_compiler.cache_keys import step_key

P = ParamSpec("P")
T = TypeVar("T")

_RECORD, _RESULT, _BLOBS = "record.json", "result.json", "blobs.bin"
_KEY = re.compile(r"[a-z0-9][a-z0-9_\-]*-[0-9a-f]{64}")


class _Record(Frozen):
    """What an entry holds."""

    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Hit(Generic[T]):
    """A result that was kept; it may be None."""

    result: T


class Called(NamedTuple, Generic[T]):
    """What a cached call gave.

    Attributes:
        hit: Whether the step was not run, because its result was kept.
        fault: Why the result of a step that ran is not kept; empty if it is.
    """

    result: T
    hit: bool
    fault: str


@dataclass(frozen=True)
class StepCache:
    """Results of steps on disk; any number of builds may use it at once.

    Attributes:
        root: Its directory, made with owner-only permissions when something is first kept.
        limit_bytes: Of all entries; the least recently used go first.
    """

    root: Path
    limit_bytes: int

    def get(self, key: str, result_type: type[T]) -> Hit[T] | None:
        """The result under a key, or None; an entry that does not fit is removed.

        Raises:
            TypeError: Results of this type cannot be kept.
        """
        path, made = self._path(key), codec(result_type)
        if not path.is_dir():
            return None
        try:
            result = _read(path, made)
        except (MisfitError, OSError):
            # Damaged, of another version, or removed by another build at this moment.
            _forget(path)
            return None
        touch(path)
        return Hit(result)

    def put(self, key: str, result: T, result_type: type[T]) -> str:
        """Keeps a result under a key, then trims the cache.

        Returns:
            Why it is not kept: the disk is full or not writable, or the result is larger than the
            cache may be. Empty if it is kept.

        Raises:
            TypeError: The result is not of its type, or of a type that cannot be kept.
        """
        path, made = self._path(key), codec(result_type)
        try:
            with adding(path) as folder:
                _write(folder, made, result, self.limit_bytes)
            self.trim()
        except _TooLargeError as error:
            return str(error)
        except OSError as error:
            return f"{self.root} cannot be written: {error.strerror or error}"
        return ""

    def entries(self) -> tuple[Entry, ...]:
        """What is kept, the least recently used first."""
        return entries(self.root)

    def trim(self) -> tuple[Entry, ...]:
        """Removes the least recently used entries beyond the limit, and what ended builds left."""
        return trim((self.root,), self.limit_bytes)

    def clear(self) -> tuple[Entry, ...]:
        """Removes every entry."""
        return clear(self.root)

    def _path(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} is no key of a step")
        return self.root / key


def cached_call(
    cache: StepCache,
    tools: Mapping[str, str],
    name: str,
    step: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Called[T]:
    """What a step makes of its arguments: from the cache, or else run and kept there.

    The result's type is the one that the step's signature returns.

    Args:
        tools: Versions by name, on which every result depends.
        name: Of the step; lower case letters, digits, `-` and `_`.

    Raises:
        TypeError: An argument has no digest, or the result cannot be kept.
    """
    result_type = get_type_hints(step, include_extras=True)["return"]
    key = step_key(name, step, args, kwargs, tools)
    found = cache.get(key, result_type)
    if found is not None:
        return Called(found.result, hit=True, fault="")
    result = step(*args, **kwargs)
    return Called(result, hit=False, fault=cache.put(key, result, result_type))


class _TooLargeError(ValueError):
    """An entry is larger than the cache may be."""


def _write(folder: Path, made: Codec, result: object, limit_bytes: int) -> None:
    with (folder / _BLOBS).open("xb") as blobs:
        document = made.encode(result, blobs, "result")
    spelt = json.dumps(document, allow_nan=False).encode()
    (folder / _RESULT).write_bytes(spelt)
    files = {_RESULT: hash_bytes(spelt), _BLOBS: hash_file(folder / _BLOBS)}
    record = _Record(files=files).model_dump_json().encode()
    (folder / _RECORD).write_bytes(record)
    size = len(record) + sum(file.size for file in files.values())
    if size > limit_bytes:
        raise _TooLargeError(f"it takes {size} bytes, and the cache may take {limit_bytes}")


def _read(folder: Path, made: Codec) -> Any:  # noqa: ANN401 - of the codec's type
    """The result of an entry.

    Raises:
        MisfitError: It is damaged, or of another type.
        OSError: It cannot be read.
    """
    try:
        record = _Record.model_validate_json((folder / _RECORD).read_bytes())
        spelt = (folder / _RESULT).read_bytes()
        found = {_RESULT: hash_bytes(spelt), _BLOBS: hash_file(folder / _BLOBS)}
        if record.files != found:
            raise MisfitError("a file is not what the record says")
        with (folder / _BLOBS).open("rb") as blobs:
            return made.decode(json.loads(spelt), blobs)
    except (ValidationError, RecursionError) as error:
        raise MisfitError("the record cannot be read") from error


def _forget(path: Path) -> None:
    """Removes an entry; where that is not allowed, the next one that is kept says so."""
    try:
        remove(path)
    except OSError:
        return
